"""How the dataset is written, and what stops it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.base.config import Count, Fraction, Frozen, NonNegative


class StyleGates(Frozen):
    """How much the two texts of a pair may differ in style, over all descriptions; null stops nothing."""

    vocabulary: str | None = Field(
        None,
        description="objects that the classifier of max_auc does not see, as in score.objects; default: that of "
        "rewrite, or of the first scorer that has one",
    )
    max_auc: Annotated[Fraction, Field(ge=0.5)] | None = Field(
        None, description="how well a classifier may tell chosen from rejected by style; 0.5 is not at all"
    )
    max_length_gap: NonNegative | None = Field(None, description="mean difference of the lengths, in words")
    max_logp_gap: NonNegative | None = Field(None, description="mean difference of the log-probs, in nats per token")
    min_edit_distance: Fraction | None = Field(None, description="mean share of the words that differ, at least")
    max_edit_distance: Fraction | None = Field(None, description="mean share of the words that differ, at most")

    @model_validator(mode="after")
    def _leaves_room(self) -> StyleGates:
        low, high = self.min_edit_distance, self.max_edit_distance
        if low is not None and high is not None and low > high:
            raise ValueError(f"min_edit_distance={low:g} is above max_edit_distance={high:g}; change one of the two")
        return self


class Publish(Frozen):
    """How the dataset is written. Images that the prompts hold are always in the pairs, and so are members of tars and
    what readers of the file could see in different ways."""

    rows_per_shard: Count = Field(10_000, description="rows in one file of the dataset")
    images: Literal["reference", "embed"] = Field(
        "reference",
        description="embed: copy image files that the prompts only name into the pairs, so that the dataset can be "
        "moved; reference: leave their paths",
    )
    images_in_candidates: bool = Field(False, description="images in the table of all candidates, too")
    style: StyleGates = Field(StyleGates(), description="what stops publishing")
