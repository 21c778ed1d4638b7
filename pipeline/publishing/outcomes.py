"""What became of each prompt of a shard: a pair, the reason why there is none, what failed, or nothing yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.base import columns
from pipeline.base.columns import Ints
from pipeline.running.joined import Joined

PAIRED = "paired"
UNFINISHED = "not finished"


class Failure(NamedTuple):
    """The prompt in row ``row`` failed in ``stage``, before any later one."""

    row: int
    stage: str
    error_type: str
    error: str

    @property
    def outcome(self) -> str:
        """
        >>> Failure(0, "sample", "timeout", "30 s").outcome
        'failed in sample: timeout'
        """
        return f"failed in {self.stage}: {self.error_type}"


def failures(of: Joined) -> Iterator[Failure]:
    """Of every prompt that failed, what failed first."""
    tables = {"source": of.source, "sample": of.sample, "score": of.score, "pair": of.pairs}
    broken = np.flatnonzero(columns.bools(pc.not_equal(of.pairs["status"], "ok")))
    first = _first(of, broken)
    bad = {stage: columns.bools(pc.not_equal(tables[stage]["status"], "ok")) for stage in ("source", "sample", "score")}
    bad["pair"] = first >= 0
    left = np.ones(len(of.ids), bool)
    for stage, rows in bad.items():
        for row in np.flatnonzero(left & rows).tolist():
            table, at = (of.pairs, first[row]) if stage == "pair" else (tables[stage], row)
            yield Failure(row, stage, table["error_type"][at].as_py() or "unknown", table["error"][at].as_py() or "")
        left &= ~rows


def outcomes(of: Joined, failed: Iterator[Failure] | list[Failure] | None = None) -> Any:
    """One for each prompt, as an array of strings; ``failed`` are its ``failures`` if they are known."""
    first = _first(of, np.arange(len(of.prompt)))
    reasons = pc.fill_null(of.pairs["reason"].take(pa.array(first, mask=first < 0)), "no reason given")
    names = np.array(reasons.to_pylist(), object)
    names[first < 0] = UNFINISHED
    names[np.unique(of.prompt[columns.bools(of.pairs["chosen"].is_valid())])] = PAIRED
    for failure in failed if failed is not None else failures(of):
        names[failure.row] = failure.outcome
    return pa.array(names, pa.string())


def _first(of: Joined, rows: Ints) -> Ints:
    """For each prompt the first of these rows of the pairs that is its own; -1 if none is."""
    first = np.full(len(of.ids), -1)
    first[of.prompt[rows][::-1]] = rows[::-1]
    return first
