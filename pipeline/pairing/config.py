"""Which candidates may be compared, how they are ranked, and which of them become pairs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from pipeline.base import plugins
from pipeline.base.config import Count, Fraction, Frozen, Positive, Real, name_or_path
from pipeline.base.errors import PipelineError

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
    """Which texts may not be chosen or rejected, beside empty and too short ones."""

    leaked_template: bool = Field(True, description="stop texts with marks of a chat template")
    repetition: bool = Field(True, description="stop texts with a phrase that follows itself, see max_repeated")
    refusal: bool = Field(True, description="stop refusals to answer")
    wrong_script: bool = Field(True, description="stop texts in another script than the prompt")
    wrong_language: bool = Field(True, description="stop texts in another language than the prompt")
    cut_off: bool = Field(True, description="stop texts that were cut at max_tokens")

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

    above: Real | None = Field(None, description="raw scores above this are barred")
    below: Real | None = Field(None, description="raw scores below this are barred")
    bars: Literal["chosen", "rejected", "both"] = Field("chosen", description="the side that a text may not be on")

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
    """Which candidates may be compared, how they are ranked, and which of them become pairs."""

    policy: Annotated[str, name_or_path(BUILT_IN)] = Field(
        "best_vs_worst",
        description="which texts meet (docs/pairing.md); others than ours by a dotted path or an entry point "
        "(docs/extending.md)",
    )
    options: dict[str, Any] = Field(default_factory=dict, description="options of a policy that is not ours")
    weights: dict[str, Real] = Field(
        default_factory=dict,
        description="score name: its weight in the sum that ranks candidates; null scores do not count",
    )
    standardise: bool = Field(
        False, description="bring each score to mean 0 and standard deviation 1 among the able texts of a prompt first"
    )
    vetoes: dict[str, Veto] = Field(default_factory=dict, description="score name: bounds that bar a text")
    margin: Positive = Field(1.0, description="least difference of the weighted sums; below it two texts are a tie")
    max_length_ratio: Annotated[Real, Field(ge=1)] = Field(
        2.0, description="words of the longer text over words of the shorter one, at most"
    )
    min_words: Count = Field(1, description="words that a text has at least")
    max_repeated: Count = Field(2, description="how often a phrase of one to four words may follow itself")
    gates: Gates = Field(Gates(), description="which texts may be in no pair")
    on_policy_only: bool = Field(False, description="only texts of the model that is to be trained")
    max_pairs: Count | None = Field(
        None,
        description="pairs of a prompt, at most; default: one, or with all_above_margin, top_k, correctness, "
        "continuation and rewritten all there are",
    )
    k: Count = Field(2, description="best and worst texts that top_k pairs")
    balance_length: bool = Field(
        False, description="leave out pairs until the share whose longer text wins lies within longer_wins"
    )
    longer_wins: tuple[Fraction, Fraction] = Field(
        (0.45, 0.55), description="lowest and highest share of pairs whose longer text wins"
    )

    @field_validator("longer_wins")
    @classmethod
    def _half_is_within(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not value[0] <= 0.5 <= value[1]:
            raise ValueError(f"longer_wins={list(value)} leaves out one half; write two shares around it: [0.45, 0.55]")
        return value

    def plug_in(self) -> Any:
        """The policy, if it is not one of ours: ``propose(able)`` gives pairs (chosen, rejected) of able texts."""
        if self.policy in BUILT_IN:
            return None
        return plugins.plug("policies", self.policy, self.options, "propose(able)", BUILT_IN)

    @cached_property
    def deciding_scores(self) -> frozenset[str]:
        """The scores that decide about anything: with a weight, or a veto."""
        return frozenset(self.vetoes) | {name for name, weight in self.weights.items() if weight}

    @model_validator(mode="after")
    def _fits_together(self) -> Pair:
        if self.policy in BUILT_IN and self.options:
            raise ValueError(f"options are those of a policy that is not ours, and {self.policy} is; remove them")
        try:
            self.plug_in()
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
