"""What differs by the rounding of floats alone is equal: otherwise a tie would become a pair, of either sign."""

from __future__ import annotations

from collections.abc import Sequence

#: Relative to the largest value that is compared; scores have seven digits where a network gives them.
EQUAL = 1e-9


def spread(values: Sequence[float]) -> float:
    """The largest less the smallest; 0 where that is rounding.

    >>> spread([1.0, 3.0]), spread([0.1 + 0.2, 0.3])
    (2.0, 0.0)
    """
    high, low = max(values), min(values)
    return high - low if high - low > EQUAL * max(abs(high), abs(low)) else 0.0


def without_rounding(values: Sequence[float | None]) -> list[float | None]:
    """Each value as it is, or the lowest of those that it equals but for rounding. Their order does not matter.

    >>> without_rounding([0.1 + 0.2, None, 0.3, 0.4])
    [0.3, None, 0.3, 0.4]
    """
    known = sorted({value for value in values if value is not None})
    scale = max(map(abs, known), default=0.0)
    stands_for: dict[float, float] = {}
    lowest = float("-inf")
    for value in known:
        if value - lowest > EQUAL * scale:
            lowest = value
        stands_for[value] = lowest
    return [None if value is None else stands_for[value] for value in values]


def reaches(better: float, worse: float, margin: float) -> bool:
    """Whether one is above the other by ``margin`` or more, but for rounding.

    >>> reaches(0.3, 0.2, 0.1), reaches(0.3, 0.21, 0.1)
    (True, False)
    """
    return better > worse and better - worse >= margin - EQUAL * max(abs(better), abs(worse))
