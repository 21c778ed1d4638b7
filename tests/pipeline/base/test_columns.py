from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base import columns
from pipeline.base.errors import InputError

LISTS = st.lists(st.none() | st.lists(st.none() | st.integers(0, 9), max_size=3), max_size=6)


@given(LISTS, st.integers(0, 3), st.integers(1, 3))
def test_a_list_column_taken_apart_and_put_together(rows: list[list[int] | None], start: int, pieces: int) -> None:
    """Whatever it was sliced from, and in however many chunks it lies."""
    parts = [
        pa.array([[7], None, *part], pa.list_(pa.int64())).slice(2) for part in (rows[i::pieces] for i in range(pieces))
    ]
    column = pa.chunked_array(parts).slice(start)
    plain = column.to_pylist()
    sizes = columns.counts(column)
    assert sizes.tolist() == [len(row or []) for row in plain]
    assert columns.items(column).to_pylist() == [item for row in plain for item in row or []]
    assert columns.rows(sizes).tolist() == [i for i, row in enumerate(plain) for _ in row or []]
    assert columns.lists(sizes, columns.items(column)).to_pylist() == [row or [] for row in plain]


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 4)), max_size=6))
def test_ranges(pairs: list[tuple[int, int]]) -> None:
    first, sizes = (np.array([pair[i] for pair in pairs], np.int64) for i in (0, 1))
    expected = [number for start, size in pairs for number in range(start, start + size)]
    assert columns.ranges(first, sizes).tolist() == expected


@given(st.lists(st.sampled_from("abcd"), unique=True), st.lists(st.sampled_from("abcdx")))
def test_rows_of_other_ids_are_null(have: list[str], wanted: list[str]) -> None:
    table = pa.table({"id": pa.array(have, pa.string()), "status": pa.array(["ok"] * len(have), pa.string())})
    aligned_table = columns.align(table, pa.array(wanted, pa.string()))
    assert aligned_table["id"].to_pylist() == [id if id in have else None for id in wanted]
    assert columns.ok(aligned_table).tolist() == [id in have for id in wanted]


def test_a_score_has_one_value_for_each_candidate() -> None:
    score = pa.struct([("name", pa.string()), ("version", pa.string()), ("values", pa.list_(pa.float64()))])
    scores = pa.array([None, [{"name": "a", "version": "1", "values": [1.0, None]}]], pa.list_(score))
    scored = columns.Scored.of(pa.array(["x", "y"]), scores, np.array([3, 2]))
    assert (scored.row.tolist(), scored.name.to_pylist(), scored.begins.tolist()) == ([1], ["a"], [0])
    with pytest.raises(InputError, match="id 'y' has 2 values of a for 1 candidates"):
        columns.Scored.of(pa.array(["x", "y"]), scores, np.array([3, 1]))
