"""Two texts word by word, and a text in pieces: which words differ, which are marked."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

#: Beyond so many words of both together, a comparison takes seconds, and nobody reads it.
MOST_WORDS = 4_000
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
    words = [list(_WORD.finditer(text)) for text in (first, second)]
    if sum(map(len, words)) > MOST_WORDS:
        return ([(0, len(first))], [(0, len(second))]) if first != second else ([], [])
    folded = [[match[0].casefold() for match in matches] for matches in words]
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
