"""What the files of a model tell without its weights: names and shapes of its parameters, positions, image token.

Imports no torch: plans ask it.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.base.model_files import local_folder, require_model
from training.config import TrainConfig
from training.errors import ModelError

TOWERS = (
    *("vision_tower", "visual", "vision_model", "vision_encoder", "high_res_vision_model"),
    *("image_tower", "video_tower", "audio_tower"),
)
PROJECTORS = (
    *("multi_modal_projector", "mm_projector", "projector", "vision_projection", "vision_adapter", "aligner", "mlp1"),
    *("connector", "resampler_model", "merger", "deepstack_merger_list", "image_newline", "embed_vision"),
)
#: Matrices of the language model that are no linear layer, or none that gets an adapter.
_NOT_LINEAR = ("embed", "wte", "lm_head")
#: Bytes of a value.
_FLOAT32, _SIZES = 4, {"float32": 4, "bfloat16": 2}
#: Longer headers than any model has.
_LONGEST_HEADER = 100_000_000


def part_of(name: str) -> str:
    """``vision``, ``projector`` or ``language``: which part of the model a parameter belongs to.

    What turns the tower's output into the language model's input is projector wherever it stands: Qwen-VL keeps its
    mergers inside the tower, LLaVA-NeXT the embedding that ends a line of patches outside of both.
    """
    words = name.split(".")
    if any(projector in words for projector in PROJECTORS):
        return "projector"
    return "vision" if any(tower in words for tower in TOWERS) else "language"


@dataclass(frozen=True)
class SavedModel:
    """The files of a model in ``folder``."""

    folder: Path

    @cached_property
    def config(self) -> dict[str, Any]:
        return _json(self.folder / "config.json")

    @property
    def positions(self) -> int | None:
        """How many tokens a sequence may have; None if the file does not say."""
        text = self.config.get("text_config") or self.config
        value = text.get("max_position_embeddings") if isinstance(text, Mapping) else None
        return value if type(value) is int else None

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the parameters, by the names in the safetensors files; empty where there are none."""
        return {
            name: tuple(entry["shape"])
            for file in sorted(self.folder.glob("*.safetensors"))
            for name, entry in _header(file).items()
            if name != "__metadata__" and isinstance(entry, dict) and "shape" in entry
        }

    @property
    def linear(self) -> dict[str, tuple[int, ...]]:
        """The matrices of the language model's layers, which may get adapters."""
        return {
            name.removesuffix(".weight"): shape
            for name, shape in self.shapes.items()
            if name.endswith(".weight")
            and len(shape) == 2
            and part_of(name) == "language"
            and not any(word.startswith(_NOT_LINEAR) for word in name.split(".")[-2:])
        }

    def problems(self, config: TrainConfig) -> Iterator[ModelError]:
        """Options that do not go with the model, and what cannot be trained, as far as its files tell."""
        if self.config.get("quantization_config"):
            yield quantised(config.model)
        if (self.folder / "adapter_config.json").is_file():
            yield with_adapter(config.model)
        wanted = config.lora.target_modules
        if config.tuning == "lora" and wanted != "all-linear" and self.linear and not self._targets(config):
            names = sorted({name.rpartition(".")[2] for name in self.linear})
            yield ModelError(
                f"lora.target_modules={list(wanted)} match no linear layer; use all-linear, or some of "
                f"{', '.join(names)}"
            )
        parts = {part_of(name) for name in self.shapes}
        for part, frozen in (("vision", config.freeze_vision), ("projector", config.freeze_projector)):
            if config.tuning == "full" and frozen and parts and part not in parts:
                yield ModelError(f"model {config.model} has no {part} to freeze; set freeze_{part}=false")
        image = self.config.get("image_token_id", self.config.get("image_token_index"))
        tokens = self._token_ids()
        if type(image) is int and tokens and image not in tokens:
            yield ModelError(
                f"model {config.model}: its config.json names image token {image}, which its tokenizer.json does not "
                "have; take both from the same model"
            )

    def notes(self, config: TrainConfig) -> Iterator[str]:
        """What counts otherwise than it was written."""
        positions = self.positions
        if config.max_length is not None and positions is not None and config.max_length > positions:
            yield f"max_length={config.max_length} is more than the {positions} positions of the model, which count"
        if config.tuning == "lora" and config.lora.target_modules != "all-linear" and self.linear:
            named = {name.rpartition(".")[2] for name in self.linear}
            if lost := [name for name in config.lora.target_modules if name not in named]:
                yield f"lora.target_modules: no linear layer of the model is called {', '.join(lost)}"

    def moving(self, config: TrainConfig) -> int | None:
        """How many parameters are trained; None where no file tells."""
        if not self.shapes:
            return None
        if config.tuning == "lora":
            return sum(config.lora.r * sum(shape) for shape in self._targets(config).values())
        frozen = {part for part in ("vision", "projector") if getattr(config, f"freeze_{part}")}
        return sum(math.prod(shape) for name, shape in self.shapes.items() if part_of(name) not in frozen)

    def disk(self, config: TrainConfig, checkpoints: int) -> int | None:
        """Bytes of the model that a training writes, of its adapters, and of so many checkpoints: what moves, and two
        moments of it."""
        moving = self.moving(config)
        if moving is None:
            return None
        model = sum(math.prod(shape) for shape in self.shapes.values()) * _SIZES[config.precision]
        adapter = moving * _FLOAT32 if config.tuning == "lora" else 0
        return model + adapter + checkpoints * 3 * moving * _FLOAT32

    def _targets(self, config: TrainConfig) -> dict[str, tuple[int, ...]]:
        wanted = config.lora.target_modules
        named = self.linear.items()
        return {name: shape for name, shape in named if wanted == "all-linear" or name.rpartition(".")[2] in wanted}

    def _token_ids(self) -> set[int]:
        content = _json(self.folder / "tokenizer.json")
        added: set[Any] = {token.get("id") for token in content.get("added_tokens") or () if isinstance(token, dict)}
        words = (content.get("model") or {}).get("vocab") or {}
        # A vocabulary of pieces is a list, whose places are the ids.
        return added | (set(words.values()) if isinstance(words, dict) else set(range(len(words)))) if words else set()


def quantised(model: str) -> ModelError:
    """Of weights that are stored in a few bits: what is learnt cannot be added to them."""
    return ModelError(
        f"model {model}: its weights are stored quantised (quantization_config in its config.json), and what is learnt "
        "cannot be merged into such; give the model that it was made from, with quantization=nf4 where memory is short"
    )


def with_adapter(model: str) -> ModelError:
    """Of a whole model that an adapter lies beside: transformers adds it without a word, and vLLM does not."""
    return ModelError(
        f"model {model}: an adapter (adapter_config.json) lies beside its weights, which transformers adds to them and "
        "vLLM does not; merge it into the weights, or take its files out of the folder"
    )


def require_fitting(config: TrainConfig) -> None:
    """
    Raises:
        EngineError: there is no such model, or the hub cannot be asked.
        ModelError: an option does not go with it, as far as its files tell.
    """
    require_model(config.model, config.model_revision, images=True)
    folder = local_folder(config.model, config.model_revision)
    if folder is not None and (problem := next(SavedModel(folder).problems(config), None)) is not None:
        raise problem


def notes(config: TrainConfig) -> list[str]:
    """``SavedModel.notes`` of the model that is trained, where its files are on this machine."""
    folder = local_folder(config.model, config.model_revision)
    return list(SavedModel(folder).notes(config)) if folder is not None else []


def _json(path: Path) -> dict[str, Any]:
    """Empty where there is no such file, or none that can be read: whoever opens the model says so."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _header(path: Path) -> dict[str, Any]:
    """What a safetensors file holds: eight bytes say how long the JSON is that follows."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            content = json.loads(file.read(length)) if length <= _LONGEST_HEADER else {}
    except (OSError, ValueError, struct.error):
        return {}
    return content if isinstance(content, dict) else {}
