"""From a few times over samples of different sizes: what a stage costs once, in a batch, and for each row."""

from __future__ import annotations

import doctest

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.recipe import cost as module
from pipeline.recipe.cost import Cost, Lap, batch_rows
from pipeline.sampling.config import Sample
from pipeline.sampling.stage import SampleStage


def engine_seconds(rows: int, full: int, batch: float, each: float) -> float:
    """An engine that answers ``full`` rows at a time."""
    return -(-rows // full) * batch + rows * each


@given(
    batch=st.floats(0.0, 30.0),
    each=st.floats(0.001, 2.0),
    full=st.integers(1, 300),
    batches=st.integers(1, 40),
    late=st.floats(0.0, 60.0),
)
def test_two_sizes_foretell_full_batches(batch: float, each: float, full: int, batches: int, late: float) -> None:
    """20 prompts are no full batch: their own rate would be up to 15 times too slow."""
    laps = [Lap(rows, engine_seconds(rows, full, batch, each)) for rows in (3, 5, 20) if rows <= full]
    if len(laps) < 3:
        laps = [Lap(rows, rows * (batch / full + each)) for rows in (3, 5, 20)]  # it was full already
    laps[0] = Lap(3, laps[0].seconds + late)
    cost = Cost.of(laps, full, False, 40.0, 28, 28, 280, {})
    truth = engine_seconds(full * batches, full, batch, each)
    if full * batches > 20:
        assert cost.seconds(full * batches) == pytest.approx(truth, rel=1e-6)
    assert cost.first == pytest.approx(late, abs=1e-6) and cost.start == 40.0 and cost.bytes_per_row == 10.0


def test_a_sample_that_filled_the_worker_is_taken_as_it_is() -> None:
    cost = Cost((Lap(20, 3.0), Lap(128, 6.4)), full=32)
    assert cost.seconds(2560) == pytest.approx(128.0) and cost.seconds(2560, workers=4) == pytest.approx(32.0)


def test_noise_never_makes_a_negative_time() -> None:
    assert Cost((Lap(5, 3.0), Lap(20, 2.0)), full=64).seconds(640) == pytest.approx(20.0)
    assert Cost((Lap(5, 0.1), Lap(20, 2.0)), full=64).seconds(640) == pytest.approx(64.0)
    assert Cost((), full=64).seconds(640) is None


def test_a_source_costs_something_once() -> None:
    assert Cost((Lap(10, 6.0), Lap(40, 9.0)), whole=True).seconds(1000) == pytest.approx(105.0)


@pytest.mark.parametrize(
    ("sample", "rows"),
    [
        ({"n": 8}, 32),
        ({"n": 4, "temperature": [0.5, 1.0]}, 32),
        ({"n": 1, "temperature": 0}, 128),  # a shard
        ({"n": 300}, 1),
        ({"n": 8, "engine": {"kind": "openai", "base_url": "http://a/v1", "concurrency": 16}}, 16),
    ],
)
def test_what_fills_an_engine(sample: dict[str, object], rows: int) -> None:
    stage = SampleStage(Sample.model_validate({"model": "m", **sample}), seed=0)
    assert batch_rows(stage, 128) == rows


def test_examples_of_the_documentation_hold() -> None:
    assert doctest.testmod(module).failed == 0
