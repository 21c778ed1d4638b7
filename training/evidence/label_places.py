"""Where the names of a plot's points stand: none on another, on a mark or beyond the plot, few on a bar, lines short.

Every name tries places around its point and takes the one that costs least beside all others as they stand; so again
until none moves. All lengths are in points (1/72 inch).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

#: Of the names' letters.
FONT_SIZE = 8
_WIDE, _HIGH = 0.53 * FONT_SIZE, 1.35 * FONT_SIZE
_RADII, _DIRECTIONS = (9, 14, 22, 32, 44, 58, 74, 92, 120), 24
#: How far a mark reaches.
_MARK = 4
#: What each costs beside a line that is longer by one point. What is covered cannot be read; a crossed line can. A name
#: that is nearer to another mark than to its own is taken for that one's.
_COVERED, _BEYOND, _LINE_ON_NAME, _LINE_ON_MARK, _NEARER, _LINES_CROSS, _ON_BAR = 4000, 4000, 400, 300, 300, 150, 25
_TURNS = 6

Point = tuple[float, float]
Segment = tuple[Point, Point]


class Box(NamedTuple):
    left: float
    low: float
    right: float
    high: float

    def meets(self, other: Box) -> bool:
        return self.left < other.right and other.left < self.right and self.low < other.high and other.low < self.high

    def gap(self, point: Point) -> float:
        """How far a point outside is."""
        return math.hypot(
            max(self.left - point[0], 0, point[0] - self.right), max(self.low - point[1], 0, point[1] - self.high)
        )

    def sides(self) -> list[Segment]:
        corners = [(self.left, self.low), (self.right, self.low), (self.right, self.high), (self.left, self.high)]
        return list(zip(corners, [*corners[1:], corners[0]], strict=True))

    def cut_by(self, segment: Segment) -> bool:
        (x, y), _ = segment
        within = self.left < x < self.right and self.low < y < self.high
        return within or any(cross(segment, side) for side in self.sides())


class Place(NamedTuple):
    """A name's outline, how far from its point that is, and the line to its middle."""

    box: Box
    distance: float
    line: Segment


def middles(
    points: Mapping[str, Point],
    bars: Sequence[Segment] = (),
    within: Box | None = None,
    unnamed: Sequence[Point] = (),
) -> dict[str, Point]:
    """The middle of each name, whose point is at ``points[name]``. ``bars`` are lines of the plot, better left bare;
    marks are at ``unnamed``, too.

    >>> middles({"a": (0, 0)})
    {'a': (11.1, 0.0)}
    """
    tried = {name: list(_around(point, name)) for name, point in points.items()}
    marks = {name: [*unnamed, *(point for other, point in points.items() if other != name)] for name in points}
    alone = {name: [_alone(place, marks[name], bars, within) for place in of] for name, of in tried.items()}
    crowded = sorted(points, key=lambda name: (min(alone[name]), name), reverse=True)
    taken: dict[str, Place] = {}
    for _ in range(_TURNS):
        before = dict(taken)
        for name in crowded:
            others = [place for other, place in taken.items() if other != name]
            costs = [cost + _beside(place, others) for place, cost in zip(tried[name], alone[name], strict=True)]
            taken[name] = tried[name][costs.index(min(costs))]
        if taken == before:
            break
    return {name: taken[name].line[1] for name in points}


def _around(point: Point, name: str) -> Iterator[Place]:
    half, rise = len(name) * _WIDE / 2, _HIGH / 2
    for radius in _RADII:
        for turn in range(_DIRECTIONS):
            angle = 2 * math.pi * turn / _DIRECTIONS
            across, up = math.cos(angle), math.sin(angle)
            x = round(point[0] + radius * across + half * _sign(across), 1)
            y = round(point[1] + radius * up + rise * _sign(up), 1)
            yield Place(Box(x - half, y - rise, x + half, y + rise), radius, (point, (x, y)))


def _alone(place: Place, others: Sequence[Point], bars: Sequence[Segment], within: Box | None) -> float:
    box, cost, line = place
    marks = [Box(x - _MARK, y - _MARK, x + _MARK, y + _MARK) for x, y in (line[0], *others)]
    cost += _COVERED * sum(map(box.meets, marks))
    cost += _LINE_ON_MARK * sum(mark.cut_by(line) for mark in marks[1:])
    cost += _NEARER * sum(box.gap(other) < box.gap(line[0]) for other in others)
    cost += _ON_BAR * sum(box.cut_by(bar) for bar in bars)
    if within is not None:
        beyond = box.left < within.left or box.right > within.right or box.low < within.low or box.high > within.high
        cost += _BEYOND * beyond
    return cost


def _beside(place: Place, others: Sequence[Place]) -> float:
    box, _, line = place
    return sum(
        _COVERED * box.meets(other.box)
        + _LINE_ON_NAME * (other.box.cut_by(line) + box.cut_by(other.line))
        + _LINES_CROSS * cross(line, other.line)
        for other in others
    )


def cross(one: Segment, other: Segment) -> bool:
    """Whether two segments have a point within both.

    >>> cross(((0, 0), (2, 2)), ((0, 2), (2, 0))), cross(((0, 0), (1, 1)), ((0, 2), (2, 0.5)))
    (True, False)
    """
    (a, b), (c, d) = one, other
    return _side(a, b, c) * _side(a, b, d) < 0 and _side(c, d, a) * _side(c, d, b) < 0


def _side(a: Point, b: Point, c: Point) -> float:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _sign(value: float) -> float:
    """-1, 0 or 1; what is nearly straight up has its name's middle above it."""
    return 0.0 if abs(value) < 0.2 else math.copysign(1.0, value)
