"""Arrow columns of lists as flat values and counts, so that a stage can work on a whole shard at once.

A list column is taken apart into ``counts`` (items per row; a null list has none) and ``items`` (the items of all rows,
one after the other), and put together with ``lists``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.base.errors import InputError

Ints = np.ndarray[Any, np.dtype[np.int64]]
Floats = np.ndarray[Any, np.dtype[np.float64]]
Bools = np.ndarray[Any, np.dtype[np.bool_]]


def whole(column: Any) -> Any:
    """A column as one array; copied only if it has several chunks."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def counts(lists: Any) -> Ints:
    return ints(pc.list_value_length(whole(lists)), 0)


def items(lists: Any, *fields: str) -> Any:
    """The items of all rows, or a field of them if they are structs."""
    flat = pc.list_flatten(whole(lists))
    return pc.struct_field(flat, list(fields)) if fields else flat


def starts(sizes: Ints) -> Ints:
    """Where each group begins if groups of these sizes follow each other, and where the last one ends.

    >>> starts(np.array([2, 0, 1])).tolist()
    [0, 2, 2, 3]
    """
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes, dtype=np.int64)])


def ranges(first: Ints, sizes: Ints) -> Ints:
    """The ranges ``first[i], first[i] + 1, ...`` of ``sizes[i]`` numbers each, one after the other.

    >>> ranges(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    return np.arange(int(sizes.sum()), dtype=np.int64) + np.repeat(first - starts(sizes)[:-1], sizes)


def rows(sizes: Ints) -> Ints:
    """The number of the group for every item.

    >>> rows(np.array([2, 0, 1])).tolist()
    [0, 0, 2]
    """
    return np.repeat(np.arange(len(sizes)), sizes)


def lists(sizes: Ints, values: Any) -> Any:
    """The inverse of ``counts`` and ``items``; no row is null."""
    return pa.ListArray.from_arrays(pa.array(starts(sizes), pa.int32()), values)


def join_lists(parts: Sequence[Any]) -> Any:
    """Row by row, the items of each of the list columns, one column's after the other's.

    >>> join_lists([pa.array([[1, 2], []]), pa.array([[3], [4]])]).to_pylist()
    [[1, 2, 3], [4]]
    """
    sizes = np.stack([counts(part) for part in parts])
    # Item k of the result is item ``order[k]`` of the columns laid one behind the other: by row, then by column.
    begins = starts(sizes.ravel())[:-1].reshape(sizes.shape)
    order = ranges(begins.T.ravel(), sizes.T.ravel())
    return lists(sizes.sum(axis=0), pa.concat_arrays([items(part) for part in parts]).take(pa.array(order)))


def ints(array: Any, null: int) -> Ints:
    numbers: Ints = pc.fill_null(whole(array), null).to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
    return numbers


def floats(array: Any) -> Floats:
    """With nan for null."""
    numbers: Floats = pc.fill_null(whole(array), np.nan).to_numpy(zero_copy_only=False)
    return numbers


def bools(array: Any) -> Bools:
    """With False for null."""
    flags: Bools = pc.fill_null(whole(array), False).to_numpy(zero_copy_only=False)
    return flags


def ok(table: pa.Table) -> Bools:
    """Which rows did not fail."""
    return bools(pc.equal(table["status"], "ok"))


def align(table: pa.Table, ids: Any) -> pa.Table:
    """The rows of ``table`` that have these ids, in their order; a row of nulls for an id it does not have."""
    present = whole(table["id"])
    return table if present.equals(ids) else table.take(pc.index_in(ids, value_set=present))


@dataclass(frozen=True)
class Scored:
    """A ``scores`` column, score by score: whose it is (``row``), its ``name`` and ``version`` (string arrays), and
    where its values begin in ``values``. It has one value for each candidate of its row."""

    row: Ints
    name: Any
    version: Any
    begins: Ints
    values: Any

    @classmethod
    def of(cls, ids: Any, scores: Any, sizes: Ints) -> Scored:
        """``sizes``: the number of candidates of each row.

        Raises:
            InputError: a score has more values than there are candidates, or fewer.
        """
        row, lengths = rows(counts(scores)), counts(items(scores, "values"))
        names = items(scores, "name")
        for wrong in np.flatnonzero(lengths != sizes[row])[:1]:
            raise InputError(
                f"score: id {ids[row[wrong]].as_py()!r} has {lengths[wrong]} values of {names[wrong]} "
                f"for {sizes[row[wrong]]} candidates",
                "delete the score directory and run the stage again",
            )
        values = items(items(scores, "values"))
        return cls(row, names, items(scores, "version"), starts(lengths)[:-1], values)
