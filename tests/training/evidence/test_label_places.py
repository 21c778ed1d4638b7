"""Names beside the points of a plot: each can be read, and is near its own point."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.evidence import label_places
from training.evidence.label_places import FONT_SIZE, Box, Point, cross

#: What a name of eight letters takes at least.
HALF, RISE = 8 * 0.5 * FONT_SIZE / 2, FONT_SIZE / 2
points_of_plot = st.lists(st.tuples(st.floats(0, 300), st.floats(0, 60)), min_size=1, max_size=10)


def named(places: list[Point]) -> dict[str, Point]:
    return {f"label {number:02d}": place for number, place in enumerate(places)}


@settings(max_examples=15)
@given(points_of_plot)
def test_no_name_stands_on_another_or_on_a_mark(places: list[Point]) -> None:
    middles = label_places.middles(named(places))
    for (x, y), (u, v) in itertools.combinations(middles.values(), 2):
        assert abs(y - v) > 2 * RISE or abs(x - u) > 2 * HALF
    for (x, y), (u, v) in itertools.product(middles.values(), places):
        assert abs(y - v) > RISE or abs(x - u) > HALF


def test_names_keep_within_the_plot() -> None:
    corners = named([(2.0, 2.0), (298.0, 2.0), (2.0, 98.0), (298.0, 98.0)])
    assert any(not HALF <= x <= 300 - HALF for x, _ in label_places.middles(corners).values()), "or it shows nothing"
    for x, y in label_places.middles(corners, within=Box(0.0, 0.0, 300.0, 100.0)).values():
        assert HALF <= x <= 300 - HALF
        assert RISE <= y <= 100 - RISE


def test_a_name_leaves_bars_bare() -> None:
    point = {"a name": (0.0, 0.0)}
    (x, y) = label_places.middles(point)["a name"]
    bar = ((x, y - 200.0), (x, y + 200.0))
    (beside, _) = label_places.middles(point, [bar])["a name"]
    assert abs(beside - x) > len("a name") * 0.5 * FONT_SIZE / 2


def test_marks_without_names_are_not_covered() -> None:
    point = {"a name": (0.0, 0.0)}
    middle = label_places.middles(point)["a name"]
    (x, y) = label_places.middles(point, unnamed=[middle])["a name"]
    assert abs(x - middle[0]) > len("a name") * 0.5 * FONT_SIZE / 2 or abs(y - middle[1]) > RISE


def test_a_name_is_nearer_to_its_own_mark_than_to_another() -> None:
    places = {"one": (100.0, 100.0), "two": (132.0, 100.0)}
    # Around "two" the plot is full of bars, and around "one" it is not.
    bars = [((115.0, 100.0 + y), (200.0, 100.0 + y)) for y in range(-48, 49, 8)]
    for name, (x, y) in label_places.middles(places, bars).items():
        half = len(name) * 0.53 * FONT_SIZE / 2
        box = Box(x - half, y - RISE, x + half, y + RISE)
        other = next(place for label, place in places.items() if label != name)
        assert box.gap(places[name]) < box.gap(other)


def test_a_row_of_points_keeps_its_order_and_no_lines_cross() -> None:
    places = named([(4.0 * number, 0.0) for number in range(8)])
    middles = label_places.middles(places)
    lines = [(places[name], middles[name]) for name in places]
    assert not any(cross(one, other) for one, other in itertools.combinations(lines, 2))
    assert max(math.dist(*line) for line in lines) < 120


@pytest.mark.parametrize("turned", [False, True])
def test_the_order_of_the_points_changes_nothing(turned: bool) -> None:
    places = named([(0.0, 0.0), (3.0, 1.0), (6.0, 0.5), (40.0, 20.0)])
    again = dict(reversed(places.items())) if turned else dict(places)
    assert label_places.middles(again) == label_places.middles(places)
