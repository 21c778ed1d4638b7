"""How well a text fits its image, by a CLIP model through open_clip.

The score is the raw cosine similarity, in [-1, 1]. CLIPScore (Hessel et al. 2021) is 2.5 * max(cosine, 0), torchmetrics
prints 100 * max(cosine, 0). Both follow from what is stored here, which also keeps the sign.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reward import Row, Scores

if TYPE_CHECKING:
    import torch

#: What open_clip's ``local-dir:`` schema reads, and the only weights file accepted here.
CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"


@dataclass(frozen=True)
class _Clip:
    model: Any
    preprocess: Callable[..., torch.Tensor]
    tokenize: Callable[[list[str]], torch.Tensor]
    device: str


class ClipScorer:
    """Score ``clip.cosine``: cosine of text and image embedding, averaged over a row's images.

    Null for rows without images and for empty texts. Texts beyond the model's context length (77 tokens for most CLIPs)
    are cut by open_clip's tokenizer: only their beginning is compared.

    Args:
        model: a folder with ``open_clip_config.json``, ``open_clip_model.safetensors`` and the tokenizer's files; or an
            open_clip architecture such as ``"ViT-B-32"``, or ``"hf-hub:..."``.
        pretrained: for an architecture: a tag such as ``"openai"``, or the path of a checkpoint. Checkpoints are read
            as safetensors or as a plain state dict (``weights_only``); pickled objects are refused.
        batch_size: images, and texts, per forward pass.
        device: ``"auto"`` takes a GPU when there is one.

    Raises:
        ValueError: an architecture without ``pretrained`` (its weights would be random), a folder without the two
            files, or ``pretrained`` next to a folder.
    """

    name = "clip"

    def __init__(
        self, model: str | Path, pretrained: str | None = None, batch_size: int = 64, device: str = "auto"
    ) -> None:
        self.model, self.pretrained, self.batch_size, self.device = str(model), pretrained, batch_size, device
        self._folder = Path(model) if Path(model).is_dir() else None
        if self._folder is not None:
            missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (self._folder / name).is_file()]
            if missing:
                raise ValueError(f"model={self.model!r} lacks {' and '.join(missing)}; save the open_clip model there")
            if pretrained is not None:
                raise ValueError(f"pretrained={pretrained!r} has no meaning for the folder {self.model!r}; remove it")
        elif pretrained is None and not self.model.startswith("hf-hub:"):
            raise ValueError(
                f"model={self.model!r} is no folder, and as an architecture it needs pretrained weights; "
                "set pretrained to an open_clip tag or to a checkpoint"
            )
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")

    @cached_property
    def version(self) -> str:
        """What the values depend on. A local folder or checkpoint counts by its content, not by where it lies."""
        if self._folder is not None:
            files = sorted(path for path in self._folder.iterdir() if path.is_file() and path.suffix != ".md")
            return f"1:{_digest(files)}"
        checkpoint = Path(self.pretrained) if self.pretrained else None
        weights = _digest([checkpoint]) if checkpoint is not None and checkpoint.is_file() else self.pretrained
        return f"1:{self.model}@{weights}"

    def score(self, rows: Sequence[Row]) -> Scores:
        """Each distinct image and each distinct text is encoded once, whatever number of rows share it.

        Raises:
            ValueError: an image cannot be decoded; the message names the row and the image.
        """
        pairs = [(row["images"], candidate["text"]) for row in rows for candidate in row["candidates"]]
        images = {image: None for row in rows if row["candidates"] for image in row["images"]}
        texts = {text: None for row_images, text in pairs if row_images and text.strip()}
        image_at = {image: i for i, image in enumerate(images)}
        text_at = {text: i for i, text in enumerate(texts)}
        if not images or not texts:
            return {"clip.cosine": [[None] * len(row["candidates"]) for row in rows]}
        image_features = self._encode_images(rows, list(images))
        text_features = self._encode_texts(list(texts))

        def cosine(row_images: Sequence[bytes], text: str) -> float | None:
            if not row_images or not text.strip():
                return None
            seen = image_features[[image_at[image] for image in row_images]]
            return float((seen @ text_features[text_at[text]]).mean())

        return {"clip.cosine": [[cosine(row["images"], c["text"]) for c in row["candidates"]] for row in rows]}

    @cached_property
    def _clip(self) -> _Clip:
        import open_clip  # seconds to import, and pulls in torch
        import torch

        name = f"local-dir:{self._folder.resolve()}" if self._folder is not None else self.model
        device = self.device if self.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
        # require_pretrained is implied here: open_clip otherwise only warns when it falls back to random weights.
        model, preprocess = open_clip.create_model_from_pretrained(
            name, pretrained=self.pretrained, device=device, weights_only=True
        )
        return _Clip(model.eval(), preprocess, open_clip.get_tokenizer(name), device)

    def _encode_images(self, rows: Sequence[Row], images: Sequence[bytes]) -> torch.Tensor:
        import torch

        def encode(batch: Sequence[bytes]) -> torch.Tensor:
            pixels = torch.stack([self._clip.preprocess(_decode(image, rows)) for image in batch])
            features: torch.Tensor = self._clip.model.encode_image(pixels.to(self._clip.device), normalize=True)
            return features.float()

        with torch.inference_mode():
            return torch.cat([encode(batch) for batch in _batches(images, self.batch_size)])

    def _encode_texts(self, texts: Sequence[str]) -> torch.Tensor:
        import torch

        def encode(batch: Sequence[str]) -> torch.Tensor:
            tokens = self._clip.tokenize(list(batch)).to(self._clip.device)
            features: torch.Tensor = self._clip.model.encode_text(tokens, normalize=True)
            return features.float()

        with torch.inference_mode():
            return torch.cat([encode(batch) for batch in _batches(texts, self.batch_size)])


def _batches(items: Sequence[Any], size: int) -> Iterable[Sequence[Any]]:
    return (items[start : start + size] for start in range(0, len(items), size))


def _decode(image: bytes, rows: Sequence[Row]) -> Any:
    from PIL import Image

    try:
        return Image.open(io.BytesIO(image)).convert("RGB")
    except OSError as error:
        at = next((r, i) for r, row in enumerate(rows) for i, seen in enumerate(row["images"]) if seen == image)
        raise ValueError(f"row {at[0]}, image {at[1]}: cannot be decoded ({error})") from error


def _digest(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return f"sha256:{digest.hexdigest()[:16]}"
