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
    value = item[key]
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key} is {value!r:.80}, which is no text")
    return value


def number(item: Mapping[str, Any], key: str) -> int:
    """An id. Digits in a text are one as well: some tools write them so.

    Raises:
        KeyError: there is no such key.
        ValueError: it is no whole number of 64 bits.

    >>> number({"id": 7}, "id"), number({"id": "7"}, "id"), number({"id": 7.0}, "id")
    (7, 7, 7)
    """
    value = item[key]
    digits = isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    if isinstance(value, bool) or not (digits or whole) or not -_MOST <= int(value) < _MOST:
        raise ValueError(f"{key} is {value!r:.80}, which is no id")
    return int(value)


def size(item: Mapping[str, Any], key: str) -> float:
    """A width or height in pixels.

    Raises:
        KeyError: there is no such key.
        ValueError: it is none.
    """
    value = item[key]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
        raise ValueError(f"{key} is {value!r:.80}, which is no size of an image")
    return float(value)
