"""The words of many texts at once: array operations over the bytes of all of them.

What separates words is a table from each byte to the one it counts as, or to ``BETWEEN``. Bytes above 127 belong to
characters outside ASCII; a table can only pass them on or take them for separators.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

Ints = np.ndarray[Any, np.dtype[np.int64]]
Bytes = np.ndarray[Any, np.dtype[np.uint8]]
#: No part of a word. UTF-8 never uses this byte.
BETWEEN = 255


@dataclass(frozen=True)
class Words:
    """``values`` holds the words of all texts in order; the others are aligned to it.

    ``text`` is the index of the word's text; ``starts`` and ``ends`` are where it lies in ``source``, the bytes of all
    texts one after the other.
    """

    values: pa.StringArray
    text: Ints
    starts: Ints
    ends: Ints
    source: Bytes
    texts: int

    @property
    def counts(self) -> Ints:
        """Words per text."""
        return np.bincount(self.text, minlength=self.texts)

    def join(self) -> pa.StringArray:
        """Every text with one space between its words."""
        sizes = self.ends - self.starts
        again = self.text[1:] == self.text[:-1] if len(self.text) else np.zeros(0, bool)
        gaps = np.concatenate([np.zeros(min(len(self.text), 1), np.int64), again.astype(np.int64)])
        # Where each word begins in the result: after all words and gaps before it.
        places = np.cumsum(sizes + gaps) - sizes
        data = np.full(int((sizes + gaps).sum()), ord(" "), np.uint8)
        letters = np.frombuffer(self.values.buffers()[2] or b"", np.uint8)
        data[np.repeat(places - (np.cumsum(sizes) - sizes), sizes) + np.arange(int(sizes.sum()))] = letters
        per_text = np.bincount(self.text, weights=sizes + gaps, minlength=self.texts).astype(np.int64)
        return _strings(data, per_text)


def table(of: Callable[[str], str], above: bool) -> Bytes:
    """A table from what each ASCII character becomes: another one, or "" between words.

    ``above``: whether bytes above 127 are parts of words.

    >>> table(lambda character: character.lower() if character.isalpha() else "", above=False)[[65, 46]].tolist()
    [97, 255]
    """
    ascii_part = [ord(of(chr(code)) or chr(BETWEEN)) for code in range(128)]
    return np.array(ascii_part + (list(range(128, 256)) if above else [BETWEEN] * 128), np.uint8)


def split(texts: Any, table: Bytes) -> Words:
    """Take a string array apart; a null counts as an empty text."""
    if texts.null_count:
        texts = texts.fill_null("")
    offsets, source = _bytes(texts)
    mapped = table[source]
    inside = mapped != BETWEEN
    before, after = np.zeros_like(inside), np.zeros_like(inside)
    before[1:], after[:-1] = inside[:-1], inside[1:]
    edges = offsets[(offsets > 0) & (offsets < len(source))]  # where one text ends and the next begins
    before[edges], after[edges - 1] = False, False
    starts, ends = np.flatnonzero(inside & ~before), np.flatnonzero(inside & ~after) + 1
    per_text = np.diff(np.searchsorted(starts, offsets))
    text = np.repeat(np.arange(len(texts)), per_text)
    return Words(_strings(mapped[inside], ends - starts), text, starts, ends, source, len(texts))


def _bytes(texts: Any) -> tuple[Ints, Bytes]:
    """Offsets that begin at 0, and the bytes they lie in."""
    _, places, data = texts.buffers()
    if not len(texts):
        return np.zeros(1, np.int64), np.zeros(0, np.uint8)
    offsets = np.frombuffer(places, np.int32)[texts.offset : texts.offset + len(texts) + 1].astype(np.int64)
    source = np.frombuffer(data or b"", np.uint8)[offsets[0] : offsets[-1]]
    return offsets - offsets[0], source


def _strings(data: Bytes, sizes: Ints) -> pa.StringArray:
    offsets = np.concatenate([np.zeros(1, np.int32), np.cumsum(sizes, dtype=np.int32)])
    return pa.StringArray.from_buffers(len(sizes), pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(data)))
