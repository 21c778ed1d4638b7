"""Images by a diffusion model, through the library diffusers. The only module that imports it, when a model is opened.

Every image has a random generator of its own, on the CPU, so that neither its batch nor the device decides what is
drawn; the last bits of a pixel still depend on both.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.base import model_names as models
from pipeline.base.errors import EngineError
from pipeline.engines.painter import Picture, Wish

if TYPE_CHECKING:
    from PIL import Image


@dataclass(frozen=True)
class OpenDiffusers:
    """Opens a ``DiffusersPainter``. ``model`` is a folder or a hub id, ``size`` is (width, height) in pixels or the
    model's own, ``dtype="auto"`` is float16 on a GPU and float32 elsewhere."""

    model: str
    revision: str | None = None
    steps: int = 28
    size: tuple[int, int] | None = None
    negative_prompt: str = ""
    dtype: str = "auto"
    batch_size: int = 4

    def __call__(self) -> DiffusersPainter:
        """
        Raises:
            EngineError: diffusers is not installed, or the model is missing, brings code of its own or cannot be
                loaded.
        """
        try:
            import diffusers
        except ImportError as error:
            raise EngineError(
                f"diffusers cannot be imported: {error}", "install the extra: pip install -e '.[imagine]' in the clone"
            ) from error
        import torch

        refuse_code(self.model)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        dtype = ("float16" if device == "cuda" else "float32") if self.dtype == "auto" else self.dtype
        options = {"revision": self.revision, "dtype": getattr(torch, dtype), "use_safetensors": True}
        try:
            try:
                pipe = diffusers.AutoPipelineForText2Image.from_pretrained(self.model, **options)
            except ValueError as error:
                # A pipeline without relatives for other tasks is not in the list of those that are found by task.
                if "AutoPipeline" not in str(error):
                    raise
                pipe = diffusers.DiffusionPipeline.from_pretrained(self.model, **options)
            pipe = pipe.to(device)
        except Exception as error:  # diffusers raises OSError, ValueError, ImportError, huggingface_hub's and others
            remedy = "give the folder that save_pretrained wrote (with safetensors), or another model"
            first = str(error).strip().partition("\n")[0]
            raise EngineError(f"diffusers cannot open {self.model!r}: {first}", remedy) from error
        pipe.set_progress_bar_config(disable=True)
        return DiffusersPainter(pipe, self)


class DiffusersPainter:
    """An open pipeline; see ``pipeline.engines.painter.Painter``."""

    def __init__(self, pipe: Any, spec: OpenDiffusers) -> None:
        self._pipe, self._spec = pipe, spec
        self._shape = dict(zip(("width", "height"), spec.size or (), strict=False))
        # Not every pipeline knows the word.
        self._avoid = {"negative_prompt": spec.negative_prompt} if spec.negative_prompt else {}

    def paint(self, wishes: Sequence[Wish]) -> Iterator[Picture]:
        """An image may fail with unsafe_image (the model's own safety checker blacked it out), blank_image (all of one
        colour, as after an overflow in float16), or the name of what the pipeline raised."""
        pictures: dict[int, Picture] = {}
        for batch in batches([wish.guidance for wish in wishes], self._spec.batch_size):
            made = self._try([wishes[at] for at in batch])
            pictures.update(zip(batch, made, strict=True))
        return (pictures[at] for at in range(len(wishes)))

    def _try(self, wishes: Sequence[Wish]) -> list[Picture]:
        """All of them, or what breaks alone and the others."""
        try:
            return self._paint(wishes)
        except Exception as error:  # other people's models: any error is one image's, until shown otherwise
            if len(wishes) == 1:
                return [Picture(error_type=type(error).__name__, error=" ".join(str(error).split())[:300])]
            return [picture for wish in wishes for picture in self._try([wish])]

    def _paint(self, wishes: Sequence[Wish]) -> list[Picture]:
        import torch

        with torch.inference_mode():
            output = self._pipe(
                prompt=[wish.text for wish in wishes],
                guidance_scale=wishes[0].guidance,
                num_inference_steps=self._spec.steps,
                generator=[torch.Generator("cpu").manual_seed(wish.seed) for wish in wishes],
                output_type="pil",
                **self._avoid,
                **self._shape,
            )
        flagged = getattr(output, "nsfw_content_detected", None) or [False] * len(wishes)
        return [picture(image, bool(unsafe)) for image, unsafe in zip(output.images, flagged, strict=True)]


def picture(image: Image.Image, unsafe: bool = False) -> Picture:
    """An image of a pipeline as PNG. What a safety checker blacked out is a failure, not data."""
    if unsafe:
        return Picture(error_type="unsafe_image", error="the model's safety checker withheld the image")
    image = image.convert("RGB")
    bands: Any = image.getextrema()  # typed as that of one band or of several
    if all(low == high for low, high in bands):
        return Picture(error_type="blank_image", error=f"every pixel is {image.getpixel((0, 0))}")
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return Picture(buffer.getvalue())


def batches(guidance: Sequence[float], size: int) -> list[list[int]]:
    """Indices in groups of at most ``size`` that share a guidance scale: a pipeline takes one for the whole batch.

    >>> batches([5, 7, 5, 7, 5], 2)
    [[0, 2], [4], [1, 3]]
    """
    by_scale: dict[float, list[int]] = {}
    for at, scale in enumerate(guidance):
        by_scale.setdefault(scale, []).append(at)
    return [indices[start : start + size] for indices in by_scale.values() for start in range(0, len(indices), size)]


def identity(model: str, revision: str | None = None) -> str:
    """As ``pipeline.base.model_names.identity``, of a folder whose parts (text encoder, unet, vae, ...) lie in folders
    below it.

    Raises:
        EngineError: there is no such folder, or it is no pipeline.
    """
    folder = Path(models.resolve(model))
    if not folder.is_dir():
        return models.identity(model, revision)
    models.require_folder(str(folder), "model_index.json")
    parts = [part for part in sorted(folder.iterdir()) if part.is_dir() and not part.name.startswith(".")]
    named = [f"{part.name}={models.identity(str(part))}" for part in parts if any(part.iterdir())]
    return "sha256:" + models.digest("\n".join([models.identity(str(folder)), *named]))


def refuse_code(model: str) -> None:
    """diffusers runs the modules that lie in a local folder without asking.

    Raises:
        EngineError: a folder holds Python files.
    """
    folder = Path(model)
    code = sorted(folder.rglob("*.py")) if folder.is_dir() else []
    if code:
        raise EngineError(
            f"the folder {model} brings code of its own ({code[0].name}), which is not run",
            "remove it if the pipeline is one that diffusers has itself",
        )
