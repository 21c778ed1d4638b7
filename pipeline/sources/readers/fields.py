"""Fields of an element of an annotation file, each of the type that it must have: nothing is made to fit by spelling
it out or cutting it off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_MOST = 2**63


def text(item: Mapping[str, Any], key: str) -> str:
    """
    Raises:
        KeyError: there is no such key.
        ValueError: it is no text, or an empty one.
    """
    found = item[key]
    if not isinstance(found, str) or not found.strip():
        raise ValueError(f"{key} is {found!r:.80}, which is no text")
    return found


def number(item: Mapping[str, Any], key: str) -> int:
    """An id. Digits in a text are one as well: some tools write them so.

    Raises:
        KeyError: there is no such key.
        ValueError: it is no whole number of 64 bits.

    >>> number({"id": 7}, "id"), number({"id": "7"}, "id"), number({"id": 7.0}, "id")
    (7, 7, 7)
    """
    found = item[key]
    digits = isinstance(found, str) and found.isascii() and found.isdigit() and len(found) < 20
    whole = isinstance(found, int) or (isinstance(found, float) and found.is_integer())
    if isinstance(found, bool) or not (digits or whole) or not -_MOST <= int(found) < _MOST:
        raise ValueError(f"{key} is {found!r:.80}, which is no id")
    return int(found)


def size(item: Mapping[str, Any], key: str) -> float:
    """A width or height in pixels.

    Raises:
        KeyError: there is no such key.
        ValueError: it is none.
    """
    found = item[key]
    if isinstance(found, bool) or not isinstance(found, int | float) or not 0 < found < 1e9:
        raise ValueError(f"{key} is {found!r:.80}, which is no size of an image")
    return float(found)
