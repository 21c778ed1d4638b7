"""How the dataset is written, and what stops it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.base.config import Count, Fraction, Frozen

Measure = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class StyleGates(Frozen):
    """How much the two texts of a pair may differ in style, over all descriptions (``pipeline.publishing.style``); a
    null stops nothing. ``max_length_gap`` is in words and ``max_logp_gap`` in nats per token, both whichever side has
    more.

    ``vocabulary`` names the objects that a classifier does not see, as in ``score.objects``. Left out, it is that of
    ``rewrite``, or of the scorers; without any, nothing is masked.
    """

    vocabulary: str | None = None
    max_auc: Annotated[float, Field(ge=0.5, le=1)] | None = None
    max_length_gap: Measure | None = None
    max_logp_gap: Measure | None = None
    min_edit_distance: Fraction | None = None
    max_edit_distance: Fraction | None = None

    @model_validator(mode="after")
    def _leaves_room(self) -> StyleGates:
        low, high = self.min_edit_distance, self.max_edit_distance
        if low is not None and high is not None and low > high:
            raise ValueError(f"min_edit_distance={low:g} is above max_edit_distance={high:g}; change one of the two")
        return self


class Publish(Frozen):
    """``images: embed`` copies the files of images that the prompts only name into the pairs, so that the dataset can
    be moved; ``reference`` leaves their paths. Images that the prompts hold are always in the pairs, and so are members
    of tars and what readers of the file could see in different ways."""

    rows_per_shard: Count = 10_000
    images: Literal["reference", "embed"] = "reference"
    images_in_candidates: bool = False
    style: StyleGates = StyleGates()
