"""Boxes of annotation files as the project writes them. A box without an area shows nothing, and is None."""

from __future__ import annotations

import math
from typing import Any

#: Pixels, and fractions, beyond this are no place in a picture.
_FAR = 1e9


class BadBox(ValueError):
    """What is no box at all; the message shows it."""


def fractions(box: Any, width: float, height: float) -> list[float] | None:
    """``[x0, y0, x1, y1]`` as fractions of the image, cut off at its edges, from ``[x, y, w, h]`` in pixels.

    Raises:
        BadBox: not four finite numbers, or a negative size.

    >>> fractions([50, 0, 100, 25], 100, 100), fractions([50, 0, 0, 25], 100, 100)
    ([0.5, 0.0, 1.0, 0.25], None)
    """
    x, y, w, h = _four(box)
    if min(w, h) < 0:
        raise BadBox(f"box {box!r:.80} has a negative size")
    x0, y0, x1, y1 = _inside(x / width), _inside(y / height), _inside((x + w) / width), _inside((y + h) / height)
    return [x0, y0, x1, y1] if x1 > x0 and y1 > y0 else None


def corners(box: Any) -> list[float] | None:
    """A box that is written as ``[x0, y0, x1, y1]`` already.

    Raises:
        BadBox: not four finite numbers, or they are the wrong way round.
    """
    x0, y0, x1, y1 = _four(box)
    if x1 < x0 or y1 < y0:
        raise BadBox(f"box {box!r:.80} ends before it begins")
    return [x0, y0, x1, y1] if x1 > x0 and y1 > y0 else None


def _four(box: Any) -> tuple[float, float, float, float]:
    fine = isinstance(box, list | tuple) and len(box) == 4
    if not fine or not all(isinstance(value, int | float) and not isinstance(value, bool) for value in box):
        raise BadBox(f"box {box!r:.80} is not four numbers")
    if not all(math.isfinite(value) and abs(value) < _FAR for value in box):
        raise BadBox(f"box {box!r:.80} has a number that is no place in an image")
    x, y, w, h = map(float, box)
    return x, y, w, h


def _inside(value: float) -> float:
    return min(max(value, 0.0), 1.0)
