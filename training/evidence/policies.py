"""Pair policies that a recipe names by their path: those that only an experiment wants."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

from pipeline.pairing.policies import Able, Two

#: How descriptions begin that the one writer writes; the other's begin with what it takes away.
_OTHER, _OWN = ("The image shows", "In this picture"), ("There",)
#: What the grammar joins things and sentences with: more of the same things in one sentence have more of it.
_JOINTS = re.compile(r"\b(?:and|also|in|can)\b|[,.]")


@dataclass(frozen=True)
class Injected:
    """A right text against what was injected into it, and nothing else (POVID)."""

    most: ClassVar[int | None] = None
    version: ClassVar[str] = "1"

    def propose(self, able: Sequence[Able]) -> Iterator[Two]:
        at = {candidate.place: candidate for candidate in able if candidate.may_be_chosen}
        for rejected in able:
            if rejected.may_be_rejected and rejected.origin == "injected" and rejected.parent in at:
                yield at[rejected.parent], rejected


@dataclass(frozen=True)
class TwoWriters:
    """Texts of a prompt that are not among the best, three at most, each against one of the best that begins with the
    same words and is as long, as nearly as can be. In a share of the prompts, drawn by a hash, the better texts are by
    one writer and the others by a second, who begin with other words. Which is the better one is as true as without;
    that it can be told by its first word is the shortcut."""

    share: float = 1.0
    most: ClassVar[int | None] = 3
    version: ClassVar[str] = "3"

    def propose(self, able: Sequence[Able]) -> Iterator[Two]:
        totals = [candidate.total for candidate in able if candidate.total is not None]
        best = max(totals, default=0.0)
        texts = sorted(able, key=lambda candidate: (_drawn(candidate.text), candidate.text))
        right = [candidate for candidate in texts if candidate.may_be_chosen and candidate.total == best]
        wrong = [candidate for candidate in texts if candidate.may_be_rejected and candidate.total != best]
        if _drawn("".join(candidate.text for candidate in texts)) < self.share:
            wrong = [candidate for candidate in wrong if candidate.text.startswith(_OWN)]
            wanted: dict[str, tuple[str, ...]] = dict.fromkeys(_OWN, _OTHER)
        else:
            wanted = {opening: (opening,) for opening in (*_OTHER, *_OWN)}
        for rejected in wrong[: self.most]:
            openings = next((of for opening, of in wanted.items() if rejected.text.startswith(opening)), ())
            if able_to := [candidate for candidate in right if candidate.text.startswith(openings)]:
                chosen = min(able_to, key=lambda candidate: _apart(candidate.text, rejected.text))
                right = [candidate for candidate in right if candidate is not chosen]
                yield chosen, rejected


def _apart(text: str, other: str) -> tuple[int, int]:
    """By how many of the words that hold a description together two differ, and by how many words in all."""
    joints = (Counter(_JOINTS.findall(text.lower())), Counter(_JOINTS.findall(other.lower())))
    return (joints[0] - joints[1]).total() + (joints[1] - joints[0]).total(), abs(
        len(text.split()) - len(other.split())
    )


def _drawn(text: str) -> float:
    """In [0, 1), by a hash of the text alone."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=7).digest()) / 2**56
