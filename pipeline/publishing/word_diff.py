"""Two texts word by word, and a text in pieces: which words differ, which are marked."""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

#: A comparison takes longer the more words of one text equal one of the other: with a model that says a word over and
#: over, minutes. Beyond so many, two texts differ as a whole. Two of 2,000 words of English have about as many.
MOST_EQUAL = 40_000
_WORD = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")

#: Characters ``[start, end)``.
Span = tuple[int, int]


class Mark(NamedTuple):
    """Characters ``[start, end)`` of a text are not true of the image, for the reason ``why``."""

    start: int
    end: int
    why: str


class Piece(NamedTuple):
    """A stretch of a text. ``changed``: the other text lacks it here. ``why`` it is hallucinated, None if it is not."""

    text: str
    changed: bool = False
    why: str | None = None


def differences(first: str, second: str) -> tuple[list[Span], list[Span]]:
    """The stretches of each text that the other does not have in that place, in whole words.

    >>> differences("A red sun and a boat.", "A blue sun.")
    ([(2, 5), (9, 20)], [(2, 6)])
    """
    if first == second:
        return [], []
    words = [list(_WORD.finditer(text)) for text in (first, second)]
    folded = [[match[0].casefold() for match in matches] for matches in words]
    if _equal_pairs(*folded) > MOST_EQUAL:
        return [(0, len(first))], [(0, len(second))]
    compared = difflib.SequenceMatcher(None, folded[0], folded[1], autojunk=False)
    spans: tuple[list[Span], list[Span]] = ([], [])
    for what, *places in compared.get_opcodes():
        for side, (begin, end) in enumerate((places[:2], places[2:])):
            if what != "equal" and begin < end:
                start = words[side][begin].start()
                # With the blank before it, or a word that is only left out would leave two.
                before = words[side][begin - 1].end() if begin and what != "replace" else start
                spans[side].append((before, words[side][end - 1].end()))
    return spans


def _equal_pairs(first: Sequence[str], second: Sequence[str]) -> int:
    """How often a word of the first text and one of the second are the same."""
    counts = Counter(second)
    return sum(counts[word] for word in first)


def pieces(text: str, changed: Iterable[Span] = (), marks: Sequence[Mark] = ()) -> list[Piece]:
    """The text in order, cut wherever something begins or ends.

    >>> pieces("A red sun.", [(2, 5)], [Mark(6, 9, "no sun")])  # doctest: +NORMALIZE_WHITESPACE
    [Piece(text='A ', changed=False, why=None), Piece(text='red', changed=True, why=None),
     Piece(text=' ', changed=False, why=None), Piece(text='sun', changed=False, why='no sun'),
     Piece(text='.', changed=False, why=None)]
    """
    spans = list(changed)
    cuts = sorted({0, len(text), *(end for span in (*spans, *(mark[:2] for mark in marks)) for end in span)})
    parts = []
    for start, end in pairwise(cuts):
        reasons = dict.fromkeys(mark.why for mark in marks if mark.start <= start and end <= mark.end)
        different = any(begin <= start and end <= until for begin, until in spans)
        parts.append(Piece(text[start:end], different, "; ".join(reasons) if reasons else None))
    return parts
