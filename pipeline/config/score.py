"""What a candidate is worth, and how two of them become a pair."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from pipeline.config.base import Count, Frozen, Positive


class Clip(Frozen):
    """``model`` is a built-in name, a folder, or an open_clip architecture (which then needs ``pretrained``)."""

    model: str = "scenes-clip"
    pretrained: str | None = None
    batch_size: Count = 64
    workers: Count = 1


class Objects(Frozen):
    """``vocabulary`` is ``scenes``, or a JSON file ``{"surface form": "object"}`` with every plural and synonym."""

    vocabulary: str = "scenes"


class Score(Frozen):
    scorers: tuple[Literal["objects", "correctness", "clip"], ...] = ("objects", "correctness")
    objects: Objects = Objects()
    clip: Clip = Clip()

    @model_validator(mode="after")
    def _some(self) -> Score:
        if not self.scorers:
            raise ValueError("scorers is empty; name at least one of objects, correctness, clip")
        if len(set(self.scorers)) != len(self.scorers):
            raise ValueError(f"scorers={list(self.scorers)} names one twice; remove it")
        return self


class Pair(Frozen):
    """``weights`` maps a score name to its weight in the sum that ranks candidates; null scores do not count.

    ``max_repeated`` bounds how often a phrase of one to four words may follow itself in a text.
    """

    policy: Literal["best_vs_worst"] = "best_vs_worst"
    weights: dict[str, Annotated[float, Field(allow_inf_nan=False)]]
    margin: Positive = 1.0
    max_length_ratio: Annotated[float, Field(ge=1, allow_inf_nan=False)] = 2.0
    min_words: Count = 1
    max_repeated: Count = 2

    @model_validator(mode="after")
    def _some(self) -> Pair:
        if not any(self.weights.values()):
            raise ValueError("weights needs a score with a weight other than 0, such as {objects.hallucinated: -1}")
        return self
