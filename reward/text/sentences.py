"""A text's sentences and where exactly they are."""

from __future__ import annotations

import re
from collections.abc import Iterator

from reward.text.types import Sentence

_LINE = re.compile(r"[^\r\n\v\f\u0085\u2028\u2029]+")
_BULLET = re.compile(r"\s*(?:[-*\u2022\u2013\u2014]|#{1,6}|\(?\d{1,3}[.)]|\(?[a-zA-Z]\))\s+")
#: What may end a sentence, with the quotes and brackets that it closes.
_STOP = re.compile(r"(?:[.!?]+|\u2026)[\"'\u201d\u2019)\]*_]*(?=\s)")
#: Never the end of a sentence, with what follows a name or a number.
_ALWAYS = re.compile(
    r"(?<![\w.])(?:Mr|Mrs|Ms|Dr|Prof|St|Mt|vs|approx|ca|cf|fig|Fig|no|No|e\.g|i\.e|[A-Z])\.$",
)
#: The end of a sentence only before a capital.
_SOMETIMES = re.compile(r"(?<![\w.])(?:etc|al|Inc|Ltd|Co|Jr|Sr|a\.m|p\.m|U\.S|U\.K)\.$|\.\.$|\u2026$")
_QUOTED = re.compile(r"\"[^\"\n]*\"|\u201c[^\u201d\n]*\u201d")
_WORD = re.compile(r"\w")


def split(text: str) -> tuple[Sentence, ...]:
    """The sentences in order. What lies between them, before and after is white space, the mark of a list item, or a
    line without a letter or digit; spans and gaps together are the text.

    A line end ends a sentence. A full stop does not inside of a number, after an abbreviation or an initial, or inside
    of a quotation; neither do three before a small letter, nor what a quotation ends with before one.

    >>> [one.text for one in split('A 2.5 m mast, e.g. of a boat. It reads "Stop. Go!" on top.  Nice')]
    ['A 2.5 m mast, e.g. of a boat.', 'It reads "Stop. Go!" on top.', 'Nice']
    >>> split("1. A sun.\\n- Two boats")[1]
    Sentence(start=12, end=21, text='Two boats')
    """
    return tuple(_sentences(text))


def _sentences(text: str) -> Iterator[Sentence]:
    for line in _LINE.finditer(text):
        bullet = _BULLET.match(text, line.start(), line.end())
        start = bullet.end() if bullet else line.start()
        for end in [*_ends(text, start, line.end()), line.end()]:
            part = text[start:end]
            first = start + len(part) - len(part.lstrip())
            last = start + len(part.rstrip())
            if _WORD.search(text, first, last):
                yield Sentence(first, last, text[first:last])
                start = end


def _ends(text: str, start: int, end: int) -> Iterator[int]:
    quoted = [match.span() for match in _QUOTED.finditer(text, start, end)]
    for stop in _STOP.finditer(text, start, end):
        following = text[stop.end() : end].lstrip()
        if not following or any(first < stop.start() and stop.end() < last for first, last in quoted):
            continue
        signs = stop[0].rstrip("\"'\u201d\u2019)]*_")
        before, closes = text[start : stop.start() + len(signs)], len(signs) < len(stop[0])
        small = following[0].islower()
        if _ALWAYS.search(before) or (small and (closes or _SOMETIMES.search(before))):
            continue
        yield stop.end()
