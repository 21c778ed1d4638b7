from __future__ import annotations

import random
import statistics
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.publishing.value_counts import Distinct, Tally

FLOATS = st.lists(st.floats(-1e6, 1e6, allow_subnormal=False) | st.integers(-5, 5).map(float), max_size=40)


def state(tally: Tally) -> tuple[object, ...]:
    return len(tally), tally.low, tally.high, tally.exact, tally.values.tolist(), tally.counts.tolist()


@given(FLOATS)
def test_few_values_are_counted_exactly(values: list[float]) -> None:
    tally = Tally(values)
    expected = Counter(value + 0.0 for value in values)
    assert dict(zip(tally.values.tolist(), tally.counts.tolist(), strict=True)) == expected and tally.exact
    if values:
        assert (tally.low, tally.high, tally.median) == (min(values), max(values), statistics.median(values))
        assert tally.mean == pytest.approx(statistics.mean(values))


@given(FLOATS, st.integers(2, 8), st.randoms(use_true_random=False))
def test_the_result_depends_on_the_values_alone(values: list[float], limit: int, random: random.Random) -> None:
    shuffled = list(values)
    random.shuffle(shuffled)
    portions = Tally(limit=limit)
    while shuffled:
        size = random.randint(1, 5)
        portions.add(np.array(shuffled[:size]))
        shuffled = shuffled[size:]
        if random.random() < 0.3:
            assert len(portions.values) <= limit
    assert state(portions) == state(Tally(values, limit))


@given(FLOATS, st.integers(2, 8))
def test_a_cell_stands_for_values_near_it(values: list[float], limit: int) -> None:
    tally = Tally(values, limit)
    assert len(tally.values) <= limit and tally.counts.sum() == len(values) == len(tally)
    assert tally.exact == (len(set(values)) <= limit)
    if values:
        places = np.repeat(tally.values, tally.counts)
        # The cells are no wider than they have to be: half as wide, there would be more than `limit` of them.
        width = 4 * (max(values) - min(values)) / max(limit - 1, 1) + 1e-9
        assert np.abs(places - np.sort(values)).max() <= width
        assert tally.values.min() >= min(values) and tally.values.max() <= max(values)


@given(st.lists(st.lists(st.integers(0, 60), max_size=30), max_size=5))
def test_different_numbers_are_counted_exactly_below_the_limit(portions: list[list[int]]) -> None:
    distinct = Distinct(limit=64)
    for portion in portions:
        distinct.add(np.array(portion, np.int64))
    assert distinct.exact and distinct.estimate == len({number for portion in portions for number in portion})


def test_beyond_the_limit_the_estimate_is_near_whatever_the_portions() -> None:
    numbers = np.arange(-30_000, 70_000)  # neighbours, as the seeds of one request are
    single, many = Distinct(limit=4096), Distinct(limit=4096)
    single.add(numbers)
    for portion in np.array_split(np.concatenate([numbers, numbers[::-1]]), 77):
        many.add(portion)
    assert single.estimate == many.estimate and not single.exact
    assert abs(single.estimate - 100_000) < 5 * 100_000 / 64
