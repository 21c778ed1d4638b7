"""Which pair is about the most similar image, among pairs that are asked the same: products of vectors by blocks."""

from __future__ import annotations

from typing import Any

import numpy as np

from pipeline.base.columns import Ints

#: Cosines that differ by less are equal: beyond the rounding of a product, far below any difference of two images.
EQUAL = 1e-9
#: Pairs of a block: products of 1024 x 4096 take 32 MB, whatever the number of pairs.
_ROWS, _COLUMNS = 1024, 4096


def nearest(vectors: np.ndarray[Any, np.dtype[np.float32]], images: Ints, answers: Ints) -> Ints:
    """For each of N pairs the place of the one whose image has the largest cosine with its own, -1 where none may.

    That one is about another image, which the model can tell from it (a cosine below 1), and its answer is another.
    Among equal cosines the first is taken: whoever calls this orders the pairs by what does not change.

    Args:
        vectors: float32 [M, width], of any length but 0.
        images: int64 [N], the row of ``vectors`` of each pair; equal for pairs about the same image.
        answers: int64 [N], equal for pairs with the same answer.

    >>> vectors = np.array([[1, 0], [0.8, 0.6], [0.6, 0.8]], np.float32)
    >>> nearest(vectors, np.array([0, 1, 2]), np.array([0, 0, 1])).tolist()
    [2, 2, 1]
    """
    result = np.full(len(images), -1)
    if len(np.unique(answers)) < 2 or len(np.unique(images)) < 2:
        return result
    for row in range(0, len(images), _ROWS):
        rows = slice(row, row + _ROWS)
        mine = _unit(vectors[images[rows]])
        best = np.full(len(mine), -np.inf)
        for column in range(0, len(images), _COLUMNS):
            others = slice(column, column + _COLUMNS)
            cosines = mine @ _unit(vectors[images[others]]).T
            cosines[images[rows, None] == images[others]] = -np.inf
            cosines[answers[rows, None] == answers[others]] = -np.inf
            cosines[cosines > 1 - EQUAL] = -np.inf
            highest = cosines.max(axis=1)
            better = highest > best + EQUAL
            first = np.argmax(cosines >= highest[:, None] - EQUAL, axis=1)
            result[rows] = np.where(better, column + first, result[rows])
            best = np.where(better, highest, best)
    return result


def _unit(vectors: np.ndarray[Any, np.dtype[np.float32]]) -> np.ndarray[Any, np.dtype[np.float64]]:
    # In float64 products of equal vectors are equal to 1e-15, wherever in a block they stand.
    wide = vectors.astype(np.float64)
    unit: np.ndarray[Any, np.dtype[np.float64]] = wide / np.linalg.norm(wide, axis=1, keepdims=True)
    return unit
