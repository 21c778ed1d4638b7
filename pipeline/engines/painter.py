"""How an image is made from a text: one wish in, one picture out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Wish:
    """``guidance`` is the weight of the text against chance, as classifier-free guidance has it; 1 is none."""

    text: str
    seed: int
    guidance: float


@dataclass(frozen=True, slots=True)
class Picture:
    """An encoded image, or why there is none. ``facts`` is what was drawn, as the column of ``pipeline.base.tables``;
    null where the painter does not know."""

    bytes: bytes | None = None
    facts: Mapping[str, Any] | None = None
    error_type: str | None = None
    error: str | None = None


class Painter(Protocol):
    """Pictures come in the order of the wishes, one for each. A picture depends on its wish and on nothing else."""

    def paint(self, wishes: Sequence[Wish]) -> Iterator[Picture]: ...
