"""What a scorer is: one that gives every candidate of a row a value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

#: One prompt with its candidates: ``{"id", "images": [bytes], "prompt": [{"role", "content"}], "facts": {...} | None,
#: "candidates": [{"text", "finish_reason"}]}``. Facts are the columns of ``pipeline.base.tables.FACTS``.
Row = Mapping[str, Any]


#: Score name -> per row -> per candidate. ``None`` where the score does not apply; raw, never thresholded.
Scores = dict[str, list[list[float | None]]]


#: Scores that say of others of their scorer that they are not known, rather than that they do not apply, where they are
#: above 0: error type and reason.
FLAGS: Mapping[str, tuple[str, str]] = {
    "correctness.unparseable": ("unreadable", "no answer can be read in a text"),
    "objects.unmatched": ("unmatched", "the file of detections does not know an image"),
}


#: Scorers that have a value for every text that they can read: where one is missing it is not known, and why.
READS_EVERY_TEXT: Mapping[str, tuple[str, str]] = dict.fromkeys(
    ("reward_model", "likelihood"), ("too_long", "prompt and text have more tokens than the model's context, or none")
)


@runtime_checkable
class Flagging(Protocol):
    """A scorer that also tells, per candidate, how far its values go. Flags are scores by name, and no opinion."""

    def flags(self, rows: Sequence[Row]) -> Scores: ...


class Scorer(Protocol):
    """``name`` is the key in a recipe; ``version`` changes whenever the same row may get another value."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def score(self, rows: Sequence[Row]) -> Scores: ...


def gives(scorer: str, name: str) -> bool:
    """Whether a score is one of this scorer's.

    >>> gives("claims", "claims.true"), gives("reward_model", "reward_model"), gives("clip", "clips.x")
    (True, True, False)
    """
    return name == scorer or name.startswith(f"{scorer}.")
