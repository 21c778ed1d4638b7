"""What is optimised: the preference loss, the terms that mDPO and SymMPO add, the rejected image, the SFT stream."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import Field, field_validator, model_serializer, model_validator

from pipeline.base.config import Count, DatasetName, Fraction, Frozen, NonNegative, Positive, name_or_path
from pipeline.base.errors import ConfigError
from training.config.plugged import Slot

#: TRL's names; what each computes stands in ``training.loss.objectives``.
LossType = Literal["sigmoid", "ipo", "hinge", "robust", "bco_pair", "apo_zero", "apo_down", "sft", "sigmoid_norm"]

#: One of a pair's sequences. ``corrupted`` is the chosen answer next to the corrupted image. With y' the good answer of
#: the similar image m': ``contrast`` is y' given the pair's own image, ``similar`` is y' given m', ``similar_swapped``
#: the chosen answer given m'.
Branch = Literal["chosen", "rejected", "corrupted", "contrast", "similar", "similar_swapped"]
#: Those that read the similar image or its answer.
SIMILAR: tuple[Branch, ...] = ("contrast", "similar", "similar_swapped")


class Addition(NamedTuple):
    """What an objective adds to the response term: its terms, and the sequences that they read beside chosen and
    rejected."""

    reads: tuple[Branch, ...] = ()
    terms: tuple[str, ...] = ()


OBJECTIVES: Mapping[str, Addition] = {
    "dpo": Addition(),
    "mdpo": Addition(("corrupted",), ("image", "anchor")),
    "symmpo": Addition(SIMILAR, ("symmetric", "anchor", "margin")),
}

#: Terms that are summed and logged for every objective.
_TAKEN = ("response", "sft")


def loss_slot(name: str, options: Mapping[str, Any]) -> Slot:
    """Where a loss is named."""
    return Slot("losses", name, options, get_args(LossType), "loss(responses, beta, label_smoothing)")


def objective_slot(name: str, options: Mapping[str, Any]) -> Slot:
    """Where an objective is named."""
    return Slot("objectives", name, options, tuple(OBJECTIVES), "terms(rewards, beta)", _check_objective)


def _check_objective(objective: Any, name: str) -> None:
    """``reads`` are sequences beside chosen and rejected, ``weights`` has a weight for each of its terms.

    Raises:
        ConfigError: they are not.
    """
    reads, extra = getattr(objective, "reads", None), get_args(Branch)[2:]
    if not isinstance(reads, tuple) or any(branch not in extra or reads.count(branch) > 1 for branch in reads):
        raise ConfigError(f"{name}: reads is {reads!r}", f"give a tuple of some of {', '.join(extra)}")
    weights = getattr(objective, "weights", None)
    if not isinstance(weights, Mapping) or not all(_is_weight(term, value) for term, value in weights.items()):
        raise ConfigError(
            f"{name}: weights is {weights!r}",
            "give a dict of names (a-z, 0-9 and _; neither response nor sft) and weights of at least 0",
        )


def _is_weight(term: Any, value: Any) -> bool:
    named = isinstance(term, str) and re.fullmatch(r"[a-z][a-z0-9_]*", term) and term not in _TAKEN
    return bool(named) and isinstance(value, int | float) and math.isfinite(value) and value >= 0


#: Which reward an anchor holds: the chosen one up, the others down.
Anchor = Literal["chosen", "rejected", "corrupted"]

CorruptionKind = Literal[
    "crop", "other", "black", "gaussian", "diffusion", "block_mask", "augment", "clip_mask", "data"
]


class Weights(Frozen):
    """The weight of each term. ``dpo`` has the response term alone, ``mdpo`` adds image and anchor, ``symmpo`` adds
    symmetric, anchor and margin (arXiv 2506.11712: 0.5, 1 and 1e-4)."""

    response: NonNegative = Field(1.0, description="chosen over rejected answer, of every objective")
    image: NonNegative = Field(1.0, description="true over corrupted image, of mdpo")
    anchor: NonNegative = Field(1.0, description="rewards that are held up or down, of mdpo and symmpo")
    symmetric: NonNegative = Field(0.5, description="each answer beside its own image, of symmpo")
    margin: NonNegative = Field(1e-4, description="equal margins on both sides, of symmpo")


class Corruption(Frozen):
    """How the rejected image is made; drawn once per pair, so policy and reference see the same picture.

    - ``crop``: a piece that KEEPS a share ``keep_area`` of the area, enlarged (mDPO; the paper's "crop 0-20 %")
    - ``other``: the image of another pair of the dataset
    - ``black``: nothing
    - ``gaussian``: noise of standard deviation ``strength`` (1 is the whole range from black to white), clipped
    - ``diffusion``: step ``steps`` of 1000 of the DDPM forward process with a linear schedule
    - ``block_mask``: a share ``strength`` of the squares of an 8 x 8 grid blackened
    - ``augment``: MoCo v2's augmentation: crop, colour jitter, grey, blur, flip
    - ``clip_mask``: of ``candidates`` random masks of a share ``strength`` of the area, the one whose picture is least
      like the chosen text for ``clip_model`` (PEA-DPO, arXiv 2608.19598: 30 masks of 9 %)
    - ``data``: the dataset's own column ``rejected_images``

    Others are named by a dotted path or an entry point (docs/extending.md), and ``options`` are theirs.
    """

    kind: Annotated[str, name_or_path(get_args(CorruptionKind))] = Field("crop", description="how, as listed above")
    options: dict[str, Any] = Field({}, description="those of a kind that is not listed above")
    keep_area: tuple[Fraction, Fraction] = Field(
        default=(0.01, 0.2), description="crop only: lowest and highest share of the area that is kept"
    )
    strength: Positive | None = Field(
        default=None,
        description="gaussian: standard deviation, black to white is 1, default 1.0; block_mask: share of the squares, "
        "default 0.5; clip_mask: share of the area, default 0.09",
    )
    steps: Annotated[Count, Field(le=1000)] = Field(
        default=500, description="diffusion only: noise steps out of 1000; more is noisier"
    )
    candidates: Count = Field(default=30, description="clip_mask only: masks to choose from")
    clip_model: str | None = Field(
        default=None,
        description="clip_mask only: scenes-clip, a folder, hf-hub:OWNER/NAME, or ARCHITECTURE@PRETRAINED such as "
        "ViT-B-32@openai",
    )

    @model_validator(mode="after")
    def _a_share(self) -> Corruption:
        if self.kind in ("block_mask", "clip_mask") and self.strength is not None and self.strength > 1:
            raise ValueError(f"strength={self.strength:g} is a share of the picture with kind={self.kind}; at most 1")
        return self

    @model_validator(mode="after")
    def _is_known(self) -> Corruption:
        if (problem := self.slot.problem()) is not None:
            raise ValueError(f"kind: {problem}")
        return self

    @model_serializer(mode="wrap")
    def _as_before_there_were_options(self, write: Any) -> dict[str, Any]:
        values: dict[str, Any] = write(self)
        return values if self.options else {key: value for key, value in values.items() if key != "options"}

    def result_options(self) -> dict[str, Any]:
        """Without ``options``: ``slot`` says what they are, with their defaults."""
        return {key: value for key, value in super().result_options().items() if key != "options"}

    @property
    def slot(self) -> Slot:
        """Where its kind is named."""
        return Slot("corruptions", self.kind, self.options, get_args(CorruptionKind), "corrupt(image, rng, text)")

    @field_validator("keep_area")
    @classmethod
    def _check_order(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError("needs 0 < low <= high <= 1, for instance [0.01, 0.2]")
        return value


class Sft(Frozen):
    """HA-DPO's auxiliary stream: the language-modelling loss on answers of another dataset, in an order of its own.

    The paper's MiniGPT-4 setting is weight 0.5; its others have no such stream, which is also what weight 0 comes to,
    but for the loss being measured.
    """

    dataset: DatasetName = Field(
        description="folder or hub name, with the columns images, prompt and chosen; rejected is not read"
    )
    weight: NonNegative = Field(0.5, description="factor of its loss")
    batch_size: Count | None = Field(None, description="rows per step; default: as many as pairs")
