"""Rows of a dataset some at a time; a value that cannot be read or stored names its row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import datasets
import pyarrow as pa

from training.errors import DataError

_BATCH = 1000
Row = dict[str, Any]


def rows(dataset: datasets.Dataset, name: Callable[[int], str]) -> Iterator[list[Row]]:
    """
    Raises:
        DataError: Python cannot hold a value (text that is not UTF-8, a date beyond its calendar).
    """
    plain = dataset.with_format(None)
    for start in range(0, len(plain), _BATCH):
        try:
            batch = plain[start : start + _BATCH]
        except (ValueError, OverflowError) as error:
            raise _unreadable(plain, start, name, error) from error
        yield [dict(zip(batch, values, strict=True)) for values in zip(*batch.values(), strict=True)]


def record_batch(
    converted: Sequence[Mapping[str, Any]], schema: pa.Schema, first: int, name: Callable[[int], str]
) -> Any:
    """A record batch of rows that begin at number ``first``.

    Raises:
        DataError: Arrow cannot hold a value, such as half of a surrogate pair.
    """
    kinds = (TypeError, ValueError, OverflowError)  # Arrow's own errors are of these
    try:
        return pa.RecordBatch.from_pylist(list(converted), schema)
    except kinds:
        for at, row in enumerate(converted):
            try:
                pa.RecordBatch.from_pylist([row], schema)
            except kinds as error:
                raise DataError(f"{name(first + at)}: cannot be stored ({error}); correct or drop the row") from error
        raise


def _unreadable(plain: datasets.Dataset, start: int, name: Callable[[int], str], error: Exception) -> DataError:
    at = start
    for at in range(start, min(start + _BATCH, len(plain))):
        try:
            plain[at]
        except (ValueError, OverflowError) as met:
            error = met
            break
    return DataError(f"{name(at)}: cannot be read ({type(error).__name__}: {error}); correct or drop the row")
