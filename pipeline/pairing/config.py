"""Which candidates may be compared, how they are ranked, and which of them become pairs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.base import plugins
from pipeline.base.config import Count, Fraction, Frozen, Positive
from pipeline.base.errors import PipelineError

Finite = Annotated[float, Field(allow_inf_nan=False)]
#: Our policies; what each does is in ``pipeline.pairing.policies``.
BUILT_IN = (
    "best_vs_worst",
    "all_above_margin",
    "best_vs_random",
    "top_k",
    "correctness",
    "corrupted_image",
    "continuation",
    "rewritten",
)
#: One of the two texts is made from the other, or both from a third; scores only confirm which is worse.
BY_ORIGIN = frozenset({"corrupted_image", "continuation", "rewritten"})


class Gates(Frozen):
    """Which of the gates in ``reward.gates`` are looked at. ``empty`` always is; ``too_short`` is ``min_words``."""

    leaked_template: bool = True
    repetition: bool = True
    refusal: bool = True
    wrong_script: bool = True
    wrong_language: bool = True
    cut_off: bool = True

    @cached_property
    def skip(self) -> frozenset[str]:
        """The names of those that are not looked at."""
        return frozenset(name for name in Gates.model_fields if not getattr(self, name))

    @property
    def read_prompts(self) -> bool:
        return self.wrong_script or self.wrong_language


class Veto(Frozen):
    """A raw score above or below a bound bars a text from being chosen, rejected, or both; a null bars nothing, unless
    it is known that the scorer could not tell."""

    above: Finite | None = None
    below: Finite | None = None
    bars: Literal["chosen", "rejected", "both"] = "chosen"

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: Any) -> Any:
        """The names of scores hold dots, so nothing before this can tell what is a key here."""
        unknown = sorted(set(values) - set(cls.model_fields)) if isinstance(values, Mapping) else []
        if unknown:
            raise ValueError(f"unknown key {', '.join(unknown)} of a veto; write {{above: 0, bars: chosen}}")
        return values

    @model_validator(mode="after")
    def _some(self) -> Veto:
        if self.above is None and self.below is None:
            raise ValueError("a veto needs above or below, such as {above: 0, bars: chosen}")
        return self

    def bar(self, side: Literal["chosen", "rejected"], value: float | None) -> bool:
        """Whether a text with this value may not be on ``side``.

        >>> Veto(above=0).bar("chosen", 1.0), Veto(above=0).bar("rejected", 1.0), Veto(above=0).bar("chosen", None)
        (True, False, False)
        """
        if value is None or self.bars not in (side, "both"):
            return False
        return (self.above is not None and value > self.above) or (self.below is not None and value < self.below)


class Pair(Frozen):
    """``weights`` maps a score name to its weight in the sum that ranks candidates; null scores do not count. With
    ``standardise`` each score is first brought to mean 0 and standard deviation 1 among the able texts of a prompt.

    ``policy`` says which texts meet. Others than ours are named by a dotted path or an entry point
    (docs/extending.md), and ``options`` are theirs. ``max_pairs`` is how many pairs a prompt gives at most (without it
    one, or with ``all_above_margin``, ``top_k``, ``correctness``, ``continuation`` and ``rewritten`` all there are).
    ``k`` is that of ``top_k``. ``max_repeated`` bounds how often a phrase of one to four words may follow itself in a
    text. With ``balance_length`` pairs are left out until the share of pairs whose longer text wins lies within
    ``longer_wins``.
    """

    policy: str = "best_vs_worst"
    options: dict[str, Any] = Field(default_factory=dict)
    weights: dict[str, Finite] = Field(default_factory=dict)
    standardise: bool = False
    vetoes: dict[str, Veto] = Field(default_factory=dict)
    margin: Positive = 1.0
    max_length_ratio: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.0
    min_words: Count = 1
    max_repeated: Count = 2
    gates: Gates = Gates()
    on_policy_only: bool = False
    max_pairs: Count | None = None
    k: Count = 2
    balance_length: bool = False
    longer_wins: tuple[Fraction, Fraction] = (0.45, 0.55)

    @field_validator("longer_wins")
    @classmethod
    def _half_is_within(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not value[0] <= 0.5 <= value[1]:
            raise ValueError(f"longer_wins={list(value)} leaves out one half; write two shares around it: [0.45, 0.55]")
        return value

    def plugged(self) -> Any:
        """The policy, if it is not one of ours: ``propose(able)`` gives pairs (chosen, rejected) of able texts."""
        if self.policy in BUILT_IN:
            return None
        return plugins.plug("policies", self.policy, self.options, "propose(able)", BUILT_IN)

    @cached_property
    def weighed(self) -> frozenset[str]:
        """The scores that decide about anything: with a weight, or a veto."""
        return frozenset(self.vetoes) | {name for name, weight in self.weights.items() if weight}

    @model_validator(mode="after")
    def _fits_together(self) -> Pair:
        if self.policy in BUILT_IN and self.options:
            raise ValueError(f"options are those of a policy that is not ours, and {self.policy} is; remove them")
        try:
            self.plugged()
        except PipelineError as error:
            raise ValueError(f"policy: {error.message}; {error.remedy}") from error
        if self.policy not in BY_ORIGIN and not any(self.weights.values()):
            raise ValueError("weights needs a score with a weight other than 0, such as {objects.hallucinated: -1}")
        if self.policy == "correctness" and {name for name, weight in self.weights.items() if weight} != {
            "correctness"
        }:
            raise ValueError("policy=correctness tells right from wrong alone; write weights: {correctness: 1}")
        if self.policy == "best_vs_worst" and self.max_pairs not in (None, 1):
            raise ValueError(
                f"max_pairs={self.max_pairs}: best_vs_worst gives one pair; use policy=top_k or all_above_margin"
            )
        return self
