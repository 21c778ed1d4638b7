"""How often each value occurs among many, in memory that does not grow with their number.

Up to ``LIMIT`` different values are counted one by one, and everything derived from the counts is exact. Beyond, values
are counted in cells whose width is the smallest power of two that leaves no more than ``LIMIT`` cells; a cell stands
for its middle. Either way the result depends on the values alone, not on the order or the portions they came in.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

Floats = np.ndarray[Any, np.dtype[np.float64]]
Ints = np.ndarray[Any, np.dtype[np.int64]]

LIMIT = 65_536
#: Exponents of the narrowest and the widest cell.
_FINEST, _WIDEST = -64, 1024


class Tally:
    """Finite numbers, counted. ``len`` is how many were added in all; ``limit`` is at least 2.

    >>> tally = Tally([2.0, 0.0, 2.0])
    >>> len(tally), tally.values.tolist(), tally.counts.tolist(), tally.mean, tally.median
    (3, [0.0, 2.0], [1, 2], 1.3333333333333333, 2.0)
    """

    def __init__(self, values: Iterable[float] = (), limit: int = LIMIT) -> None:
        self._limit = limit
        self._cells: Floats = np.zeros(0)  # sorted; values, or multiples of a cell's width rounded down
        self._counts: Ints = np.zeros(0, np.int64)
        self._exponent: int | None = None  # of the cells' width; None while values are counted one by one
        self._waiting: list[Floats] = []
        self._total = self._waiting_total = 0
        self._low, self._high = math.inf, -math.inf
        self.add(np.array(list(values), np.float64))

    def add(self, values: Floats) -> None:
        if not len(values):
            return
        self._total += len(values)
        self._low, self._high = min(self._low, float(values.min())), max(self._high, float(values.max()))
        self._waiting.append(values)
        self._waiting_total += len(values)
        # Sorting pays off for many at a time; how many changes nothing in the result.
        if self._waiting_total >= self._limit:
            self._settle()

    def __len__(self) -> int:
        return self._total

    @property
    def exact(self) -> bool:
        self._settle()
        return self._exponent is None

    @property
    def values(self) -> Floats:
        """The different values, ascending; the middles of cells, but never beyond the lowest and highest value, where
        the tally is not exact."""
        self._settle()
        if self._exponent is None:
            return self._cells
        return np.clip(self._cells + 2.0**self._exponent / 2, self._low, self._high)

    @property
    def counts(self) -> Ints:
        """How often each of ``values`` was added."""
        self._settle()
        return self._counts

    @property
    def low(self) -> float:
        """The lowest value, always exact; infinity if there is none."""
        return self._low

    @property
    def high(self) -> float:
        return self._high

    @property
    def mean(self) -> float:
        return float(np.dot(self.values, self.counts) / len(self))

    @property
    def median(self) -> float:
        """The middle value, or the mean of the two in the middle."""
        reached = np.cumsum(self.counts)
        middle = [
            self.values[np.searchsorted(reached, at, side="right")] for at in ((len(self) - 1) // 2, len(self) // 2)
        ]
        return float(sum(middle) / 2)

    def _settle(self) -> None:
        if not self._waiting:
            return
        new = np.concatenate(self._waiting)
        self._waiting, self._waiting_total = [], 0
        cells = np.concatenate([self._cells, _round(new, self._exponent)])
        self._merge(cells, np.concatenate([self._counts, np.ones(len(new), np.int64)]))
        if len(self._cells) > self._limit:
            widths = range(_FINEST if self._exponent is None else self._exponent + 1, _WIDEST)
            at = bisect.bisect_left(widths, True, key=lambda e: len(np.unique(_round(self._cells, e))) <= self._limit)
            self._exponent = widths[at]
            self._merge(_round(self._cells, self._exponent), self._counts)

    def _merge(self, cells: Floats, counts: Ints) -> None:
        self._cells, place = np.unique(cells, return_inverse=True)
        self._counts = np.bincount(place, weights=counts, minlength=len(self._cells)).astype(np.int64)


def _round(values: Floats, exponent: int | None) -> Floats:
    """Down to a multiple of ``2 ** exponent``, which is exact: rounding twice is rounding once to the coarser one."""
    return values if exponent is None else np.ldexp(np.floor(np.ldexp(values, -exponent)), exponent)


class Distinct:
    """How many different integers there are among many: exact up to ``limit``, beyond it an estimate.

    Keeps the ``limit`` smallest hashes; how close together they lie tells how many there are (Bar-Yossef et al. 2002,
    "Counting Distinct Elements in a Data Stream"). The standard error is 1 / sqrt(limit), 0.4 % of the number.

    >>> distinct = Distinct()
    >>> distinct.add(np.array([7, 7, 9]))
    >>> distinct.estimate, distinct.exact
    (2, True)
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._hashes: Any = np.zeros(0, np.uint64)
        self._waiting: list[Any] = []

    def add(self, values: Ints) -> None:
        hashes = _mix(values.astype(np.uint64))
        if len(self._hashes) == self._limit:
            hashes = hashes[hashes < self._hashes[-1]]
        self._waiting.append(hashes)
        if sum(map(len, self._waiting)) >= self._limit:
            self._settle()

    @property
    def exact(self) -> bool:
        self._settle()
        return len(self._hashes) < self._limit

    @property
    def estimate(self) -> int:
        if self.exact:
            return len(self._hashes)
        return round((self._limit - 1) / (float(self._hashes[-1]) / 2.0**64))

    def _settle(self) -> None:
        if self._waiting:
            self._hashes = np.unique(np.concatenate([self._hashes, *self._waiting]))[: self._limit]
            self._waiting = []


def _mix(values: Any) -> Any:
    """The finaliser of SplitMix64 (Steele et al. 2014): a bijection under which neighbours lie far apart."""
    with np.errstate(over="ignore"):
        values = values + np.uint64(0x9E3779B97F4A7C15)
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return values ^ (values >> np.uint64(31))
