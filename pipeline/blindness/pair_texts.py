"""A pair as a reader has it who is not shown the image, and which pairs of many are read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

#: Pairs that are read of a larger dataset.
MOST = 3_000


@dataclass(frozen=True, slots=True)
class PairTexts:
    """``images`` names the images, and pairs about the same ones share it: nothing of it is read, it only keeps such
    pairs together. ``prompt`` is the last message. ``marks`` are what the pair is counted under, such as
    ``{"source": "coco"}``."""

    images: str
    prompt: str
    chosen: str
    rejected: str
    marks: Mapping[str, str] = field(default_factory=dict)


class Drawn:
    """At most ``most`` of the pairs that are added, in memory that does not grow with them: those with the smallest
    hashes, so the draw is nobody's choice and does not depend on their order."""

    def __init__(self, most: int = MOST) -> None:
        self.total = 0
        self._most = most
        self._kept: list[tuple[bytes, PairTexts]] = []
        self._bound: bytes | None = None

    def add(self, entries: Iterable[tuple[str, PairTexts]]) -> None:
        """``entries`` are pairs and a name of each, which tells apart those that say the same."""
        for name, pair in entries:
            self.total += 1
            key = hashlib.blake2b("\0".join((name, pair.chosen, pair.rejected)).encode("utf-8", "replace")).digest()
            if self._bound is None or key < self._bound:
                self._kept.append((key, pair))
                if len(self._kept) >= 2 * self._most:
                    self._trim()

    @property
    def pairs(self) -> list[PairTexts]:
        self._trim()
        return [pair for _, pair in self._kept]

    def _trim(self) -> None:
        if len(self._kept) > self._most:
            self._kept = sorted(self._kept, key=lambda entry: entry[0])[: self._most]
            self._bound = self._kept[-1][0]


def writers(chosen: str | None, rejected: str | None) -> str:
    """The mark of who wrote both sides; a text that no model wrote was made by a rule or given.

    >>> writers("a-vlm", None)
    'a-vlm over no model'
    """
    return f"{chosen or 'no model'} over {rejected or 'no model'}"


def source_mark(source: str) -> str:
    """The mark of a source. Questions that were made from descriptions are one source: theirs say why each was asked,
    and with it the answer.

    >>> source_mark("rewrite:hallucinated"), source_mark("scenes:0:existence")
    ('rewrite', 'scenes:0:existence')
    """
    return "rewrite" if source.startswith("rewrite:") else source
