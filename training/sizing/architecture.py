"""A model's shape, read from its configuration alone: the model is built on the meta device, without weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from reward.forward.parts import Parts
from training.config import TrainConfig
from training.errors import ModelError
from training.forward.model import load_processor
from training.forward.saved_model import part_of

#: The linear layers of a decoder layer that the formulas know, all of which must be there.
ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class Linear:
    """A linear layer by its last name: ``Linear("q_proj", 4096, 4096)``."""

    name: str
    inputs: int
    outputs: int

    @property
    def weights(self) -> int:
        return self.inputs * self.outputs


@dataclass(frozen=True, slots=True)
class Architecture:
    """What memory depends on.

    - ``parameters``: all of them, tied ones once; ``tower``, ``projector`` those of these parts
    - ``split``: those that ``sharding=fsdp`` splits, ``decoder`` those of one decoder layer
    - ``linears``: the linear layers of one decoder layer, ``norms`` the widths of its norms added up, ``head_norms``
      those of norms of queries and keys
    """

    name: str
    parameters: int
    tower: int
    projector: int
    split: int
    layers: int
    decoder: int
    linears: tuple[Linear, ...]
    norms: int
    head_norms: int
    width: int
    vocabulary: int
    heads: int
    kv_heads: int
    head_width: int

    @property
    def queries(self) -> int:
        """Width of all queries of a token."""
        return self.heads * self.head_width

    @property
    def keys(self) -> int:
        """Width of all keys of a token, which is that of its values."""
        return self.kv_heads * self.head_width

    @property
    def feed_forward(self) -> int:
        return max(linear.inputs for linear in self.linears if linear.name == "down_proj")

    def adapters(self, r: int, targets: str | tuple[str, ...] = "all-linear") -> int:
        """Parameters of LoRA adapters of rank ``r``, those that ``training.forward.model`` adds."""
        return self.layers * sum(r * (linear.inputs + linear.outputs) for linear in self.adapted(targets))

    def adapted(self, targets: str | tuple[str, ...] = "all-linear") -> tuple[Linear, ...]:
        """The linear layers of a decoder layer that get an adapter."""
        return tuple(linear for linear in self.linears if targets == "all-linear" or linear.name in targets)


def read_architecture(config: Any, name: str) -> Architecture:
    """``config`` is a transformers configuration of a vision-language model.

    Raises:
        ModelError: its decoder layers are not built of ``ATTENTION`` and a gated ``FEED_FORWARD``.
    """
    from transformers import AutoModelForImageTextToText

    try:
        with torch.device("meta"):
            model: nn.Module = AutoModelForImageTextToText.from_config(config)
    except ValueError as error:  # no such model
        raise ModelError(f"model {name}: {type(config).__name__} is not that of a vision-language model") from error
    parts, text = Parts.of(model), config.get_text_config()
    if not parts.layers or parts.head is None:
        raise ModelError(f"model {name}: {parts.name} is not built of a text model with layers and an lm_head")
    decoder = parts.layers[0]
    linears = tuple(
        Linear(path.rpartition(".")[2], module.in_features, module.out_features)
        for path, module in decoder.named_modules()
        if isinstance(module, nn.Linear)
    )
    missing = {*ATTENTION, *FEED_FORWARD} - {linear.name for linear in linears}
    if missing:
        raise ModelError(
            f"model {name}: its decoder layers have no {', '.join(sorted(missing))}, so that its memory is not known "
            "here; try it with one pair a pass"
        )
    heads = text.num_attention_heads
    kv_heads = getattr(text, "num_key_value_heads", None) or heads
    queries = next(linear.outputs for linear in linears if linear.name == "q_proj")
    keys = next(linear.outputs for linear in linears if linear.name == "k_proj")
    head_width = queries // heads
    widths = {"q_norm": queries, "k_norm": keys}
    norms = [path.rpartition(".")[2] for path, module in decoder.named_modules() if _is_norm(module)]
    counts = dict.fromkeys(("vision", "projector", "language"), 0)
    for path, parameter in model.named_parameters():
        counts[part_of(path)] += parameter.numel()
    tied = parts.language.get_input_embeddings().weight is parts.head.weight
    language = sum(parameter.numel() for parameter in parts.language.parameters())
    head = parts.head.weight.numel()
    return Architecture(
        name=name,
        parameters=sum(counts.values()),
        tower=counts["vision"],
        projector=counts["projector"],
        split=language - head if tied else language + head,
        layers=len(parts.layers),
        decoder=sum(parameter.numel() for parameter in decoder.parameters()),
        linears=linears,
        norms=text.hidden_size * sum(norm not in widths for norm in norms),
        head_norms=sum(widths[norm] for norm in norms if norm in widths),
        width=text.hidden_size,
        vocabulary=head // text.hidden_size,
        heads=heads,
        kv_heads=min(kv_heads, keys // head_width),
        head_width=head_width,
    )


def image_tokens(config: TrainConfig, width: int, height: int) -> int:
    """How many tokens ``config.model`` makes of an image of so many pixels.

    Raises:
        ModelError: its processor cannot be loaded, or does not say.
    """
    processor = load_processor(config)
    try:  # what vLLM asks, too
        sizes = processor._get_num_multimodal_tokens(image_sizes=[[height, width]])
        return int(sizes["num_image_tokens"][0])
    except (AttributeError, KeyError, TypeError) as error:
        raise ModelError(
            f"model {config.model}: its processor does not say how many tokens an image has; give --image TOKENS"
        ) from error


def _is_norm(module: nn.Module) -> bool:
    return type(module).__name__.endswith("Norm")
