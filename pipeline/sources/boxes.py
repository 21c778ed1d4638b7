"""Boxes of annotation files as the project writes them."""

from __future__ import annotations


def fractions(x: float, y: float, w: float, h: float, width: float, height: float) -> list[float]:
    """``[x0, y0, x1, y1]`` as fractions of the image, cut off at its edges, from corner and size in pixels.

    >>> fractions(50, 0, 100, 25, 100, 100)
    [0.5, 0.0, 1.0, 0.25]
    """
    return [_inside(x / width), _inside(y / height), _inside((x + w) / width), _inside((y + h) / height)]


def _inside(value: float) -> float:
    return min(max(value, 0.0), 1.0)
