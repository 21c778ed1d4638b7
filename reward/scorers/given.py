"""Which of two answers that came with the prompt was the preferred one, as whoever made the data says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from reward.scorers.protocol import Row, Scores


@dataclass(frozen=True)
class GivenScorer:
    """Score ``given``: 1.0 for the first candidate of origin ``given``, 0.0 for the others of that origin, else null.

    The first is the chosen answer of the file: ``pipeline.sources.given_stage`` puts it there. Answers of models that
    were asked as well cannot be compared by this score.
    """

    name: ClassVar[str] = "given"
    names: ClassVar[tuple[str, ...]] = ("given",)
    version: ClassVar[str] = "1"

    def score(self, rows: Sequence[Row]) -> Scores:
        return {"given": [preferences([candidate.get("origin") for candidate in row["candidates"]]) for row in rows]}


def preferences(origins: Sequence[str | None]) -> list[float | None]:
    """
    >>> preferences(["sampled", "given", "given"])
    [None, 1.0, 0.0]
    """
    first = next((i for i, origin in enumerate(origins) if origin == "given"), None)
    return [float(i == first) if origin == "given" else None for i, origin in enumerate(origins)]
