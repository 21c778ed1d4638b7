"""What a response is worth: pure functions, and scorers that apply them to rows.

Nothing here imports ``pipeline`` or ``training``; modules that are a formula import neither torch, Ray nor vLLM.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

#: One prompt with its candidates: ``{"images": [bytes], "prompt": [{"role", "content"}], "facts": {...} | None,
#: "candidates": [{"text", "finish_reason"}]}``. Facts are the columns of ``pipeline.tables.FACTS``.
Row = Mapping[str, Any]

#: Score name -> per row -> per candidate. ``None`` where the score does not apply; raw, never thresholded.
Scores = dict[str, list[list[float | None]]]


class Scorer(Protocol):
    """``name`` is the key in a recipe; ``version`` changes whenever the same row may get another value."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def score(self, rows: Sequence[Row]) -> Scores: ...
