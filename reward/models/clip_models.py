"""CLIP models, whoever published them: what a name stands for, and two functions from images and texts to unit vectors.

=======================================================  ==============================================================
``ViT-B-32`` with ``pretrained="openai"``                an architecture of open_clip and a tag of its weights
``ViT-H-14`` with ``pretrained="HPS_v2.1.safetensors"``  the same with a checkpoint, as HPSv2's authors publish theirs
``hf-hub:owner/name``                                    a model on the hub that open_clip saved
``owner/name``, ``owner/name@revision``                  one that transformers saved, such as PickScore
a folder                                                 either kind, told by its files
=======================================================  ==============================================================
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from PIL import Image

#: What open_clip's ``local-dir:`` schema reads, and the only weights file accepted here.
CONFIG_FILE = "open_clip_config.json"
WEIGHTS_FILE = "open_clip_model.safetensors"
#: The same for transformers, whose weights may lie in several safetensors files.
HF_CONFIG_FILE = "config.json"

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+(@[\w.-]+)?")


@dataclass(frozen=True)
class Encoders:
    """A loaded model. ``images`` and ``texts`` give one row of length 1 for each item, float32, on the model's device.

    ``images`` takes what ``prepare`` makes of RGB images of any size; threads may call that. ``texts`` cuts what is
    beyond the model's context; ``cut`` says of which.
    """

    model: Any
    prepare: Callable[[Image.Image], Any]
    images: Callable[[Sequence[Any]], torch.Tensor]
    texts: Callable[[Sequence[str]], torch.Tensor]
    cut: Callable[[Sequence[str]], list[bool]]


@dataclass(frozen=True)
class OpenClipModel:
    """``name`` is an architecture, ``hf-hub:...``, or a folder, then with ``is_folder``.

    Whether a network has GELU or QuickGELU is no part of its weights. A folder and a model on the hub say it in their
    configuration. The list of open_clip says it of each tag, though open_clip itself does no more than warn where its
    architecture has the other one: here a tag that was trained with QuickGELU gets it. With a checkpoint, the name of
    the architecture says it: ``ViT-L-14-quickgelu``.
    """

    name: str
    pretrained: str | None
    is_folder: bool

    @property
    def version(self) -> int:
        # Since 2, the activation is the tag's; where there is no tag, nothing has changed.
        return 2 if self._tag is not None else 1

    def identity(self) -> str:
        if self.is_folder:
            return digest(_contents(Path(self.name)))
        weights = digest([Path(self.pretrained)]) if self.pretrained and self._tag is None else self.pretrained
        return f"{self.name}@{weights}"

    @property
    def _tag(self) -> str | None:
        """``pretrained``, unless it is a file."""
        return None if self.pretrained is None or Path(self.pretrained).is_file() else self.pretrained

    def open(self, device: str) -> Encoders:
        """
        Raises:
            ValueError: the checkpoint holds more than tensors.
        """
        import open_clip  # seconds to import, and pulls in torch
        import torch

        name = f"local-dir:{Path(self.name).resolve()}" if self.is_folder else self.name
        published = open_clip.get_pretrained_cfg(name.replace("/", "-"), self._tag) if self._tag is not None else {}
        try:
            # require_pretrained is implied here: open_clip otherwise only warns when it falls back to random weights.
            model, preprocess = open_clip.create_model_from_pretrained(
                name,
                pretrained=self.pretrained,
                device=device,
                weights_only=True,
                force_quick_gelu=bool(published.get("quick_gelu")),  # false leaves the architecture's own
            )
        except pickle.UnpicklingError as error:
            raise ValueError(
                f"pretrained={self.pretrained!r} holds pickled objects, which are not loaded; "
                "save its state dict as safetensors"
            ) from error
        model, tokenize = model.eval(), open_clip.get_tokenizer(name)

        def images(batch: Sequence[Any]) -> torch.Tensor:
            return _unit(model.encode_image(torch.stack(list(batch)).to(device), normalize=False))

        def texts(batch: Sequence[str]) -> torch.Tensor:
            return _unit(model.encode_text(tokenize(list(batch)).to(device), normalize=False))

        def cut(batch: Sequence[str]) -> list[bool]:
            read = tokenize([*batch, ""])
            length = read.shape[1]
            # A text that was cut ends otherwise, or goes on, where there is room for one token more.
            longer = tokenize([*batch, ""], context_length=length + 1)
            differs = (longer[:, :length] != read).any(1) | (longer[:, length:] != longer[-1, -1]).any(1)
            flags: list[bool] = differs[:-1].tolist()
            return flags

        return Encoders(model, preprocess, images, texts, cut)


@dataclass(frozen=True)
class TransformersModel:
    """``name`` is a folder or a hub id, ``processor`` another one where the tokenizer does not lie beside the model."""

    name: str
    revision: str | None = None
    processor: str | None = None

    version = 1

    def identity(self) -> str:
        folder = Path(self.name)
        weights = digest(_contents(folder)) if folder.is_dir() else f"{self.name}@{self.revision}"
        if self.processor is None:
            return weights
        other = Path(self.processor)
        return f"{weights}+{digest(_contents(other)) if other.is_dir() else self.processor}"

    def open(self, device: str) -> Encoders:
        """
        Raises:
            ValueError: some of the weights are not among those saved.
        """
        import torch
        import transformers

        # Typed too narrowly: a revision may be None, and two values come back with output_loading_info.
        saved: Any = transformers
        model, loaded = saved.CLIPModel.from_pretrained(
            self.name,
            revision=self.revision,
            use_safetensors=True,
            dtype=torch.float32,  # the weights may be stored in half precision, which few CPUs compute in
            output_loading_info=True,
        )
        if loaded["missing_keys"]:
            raise ValueError(
                f"model={self.name!r} lacks {len(loaded['missing_keys'])} weights, such as "
                f"{min(loaded['missing_keys'])}, which would be random; save the whole CLIPModel"
            )
        other = _hub(self.processor) if self.processor is not None else (self.name, self.revision)
        processor = saved.CLIPProcessor.from_pretrained(other[0], revision=other[1])
        longest = model.config.text_config.max_position_embeddings
        model = model.to(device).eval()

        def images(batch: Sequence[Any]) -> torch.Tensor:
            pixels = processor.image_processor(images=list(batch), return_tensors="pt")["pixel_values"]
            return _unit(model.get_image_features(pixel_values=pixels.to(device)).pooler_output)

        def texts(batch: Sequence[str]) -> torch.Tensor:
            tokens = processor.tokenizer(
                list(batch), padding=True, truncation=True, max_length=longest, return_tensors="pt"
            ).to(device)
            features = model.get_text_features(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
            return _unit(features.pooler_output)

        def cut(batch: Sequence[str]) -> list[bool]:
            return [len(tokens) > longest for tokens in processor.tokenizer(list(batch), verbose=False)["input_ids"]]

        return Encoders(model, _as_it_is, images, texts, cut)


def _as_it_is(image: Image.Image) -> Image.Image:
    """The processor takes a whole batch."""
    return image


def find(model: str, pretrained: str | None, processor: str | None = None) -> OpenClipModel | TransformersModel:
    """What ``model`` stands for. Nothing is loaded or fetched.

    >>> find("yuvalkirstain/PickScore_v1", None).name
    'yuvalkirstain/PickScore_v1'

    Raises:
        ValueError: an architecture without ``pretrained`` (its weights would be random), a folder that lacks the files
            of both kinds, or an argument that has no meaning for this kind.
    """
    kind = _find(model, pretrained, processor)
    if pretrained is not None and (isinstance(kind, TransformersModel) or kind.is_folder):
        raise ValueError(f"pretrained={pretrained!r} has no meaning for the {_kind(model)} {model!r}; remove it")
    if processor is not None and isinstance(kind, OpenClipModel):
        raise ValueError(f"processor={processor!r} has no meaning for the open_clip model {model!r}; remove it")
    return kind


def _find(model: str, pretrained: str | None, processor: str | None) -> OpenClipModel | TransformersModel:
    folder = Path(model)
    if folder.is_dir():
        missing = [name for name in (CONFIG_FILE, WEIGHTS_FILE) if not (folder / name).is_file()]
        if not missing:
            return OpenClipModel(model, None, is_folder=True)
        if (folder / HF_CONFIG_FILE).is_file():
            _check_transformers(folder)
            return TransformersModel(model, None, processor)
        raise ValueError(f"model={model!r} lacks {' and '.join(missing)}; save the open_clip model there")
    if pretrained is None and _HUB_ID.fullmatch(model):
        return TransformersModel(*_hub(model), processor)
    if pretrained is None and not model.startswith("hf-hub:"):
        raise ValueError(
            f"model={model!r} is no folder, and as an architecture it needs pretrained weights; "
            "set pretrained to an open_clip tag or to a checkpoint"
        )
    return OpenClipModel(model, pretrained, is_folder=False)


def _check_transformers(folder: Path) -> None:
    try:
        kind = json.loads((folder / HF_CONFIG_FILE).read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"model={str(folder)!r}: cannot read {HF_CONFIG_FILE} ({error})") from error
    if kind != "clip":
        raise ValueError(f"model={str(folder)!r} is of model_type {kind!r}; give a model of model_type 'clip'")
    if not any(folder.glob("*.safetensors")):
        raise ValueError(f"model={str(folder)!r} has no *.safetensors; save it again with save_pretrained")


def _hub(name: str) -> tuple[str, str | None]:
    """A hub id without its revision, and that. A folder's name may hold an @ of its own."""
    if Path(name).is_dir():
        return name, None
    name, _, revision = name.partition("@")
    return name, revision or None


def _kind(model: str) -> str:
    return "folder" if Path(model).is_dir() else "hub id"


def _unit(features: torch.Tensor) -> torch.Tensor:
    features = features.float()
    return features / features.norm(dim=-1, keepdim=True)


def _contents(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix != ".md")


def digest(files: Iterable[Path]) -> str:
    """Of names, sizes and contents."""
    total = hashlib.sha256()
    for path in files:
        total.update(f"{path.name}\0{path.stat().st_size}\0".encode())
        with path.open("rb") as file:
            while block := file.read(1 << 20):
                total.update(block)
    return f"sha256:{total.hexdigest()[:16]}"
