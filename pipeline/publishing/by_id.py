"""The rows of a run in the order of their ids, whichever shards they came to lie in.

A run that was made at once has its ids in order, shard after shard. In one that grew, or that had other prompts for a
while, shards overlap: those that do are read side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.base import columns
from pipeline.base.columns import Ints
from pipeline.base.errors import InputError
from pipeline.running.store import Run


def groups(run: Run, stage: str = "source") -> Iterator[list[int]]:
    """Shards that overlap, together; every id of a group is smaller than those of the groups behind it."""
    spans = sorted((*_span(run, stage, shard), shard) for shard in run.shards(stage))
    group: list[int] = []
    reached = ""
    for first, last, shard in spans:
        if group and first > reached:
            yield group
            group = []
        group.append(shard)
        reached = max(reached, last)
    if group:
        yield group


def merge(
    group: list[int], ids: Callable[[int], pa.Array], rows: Callable[[int, Ints], pa.Table], step: int
) -> Iterator[pa.Table]:
    """The rows of the shards of a group, at most ``step`` at a time.

    Args:
        ids: of a shard, rising; equal ones stay in their order.
        rows: those of a shard at the given places among ``ids``.
    """
    of_shard = [ids(shard) for shard in group]
    sizes = [len(rows) for rows in of_shard]
    home = np.repeat(np.arange(len(group)), sizes)
    place = np.concatenate([np.arange(size) for size in sizes])
    order = pc.sort_indices(pa.table({"id": pa.concat_arrays(of_shard), "home": home, "place": place}), _ORDER)
    for start in range(0, len(order), step):
        part = order.slice(start, step).to_numpy()
        parts = [(number, np.flatnonzero(home[part] == number)) for number in np.unique(home[part]).tolist()]
        table = pa.concat_tables([rows(group[number], place[part[at]]) for number, at in parts])
        yield table.take(pa.array(np.argsort(np.concatenate([at for _, at in parts])))) if parts[1:] else table


def places(ids: Any, table: pa.Table, stage: str) -> Any:
    """Where in a shard of a stage the rows with these ids are.

    Raises:
        InputError: it has none for one of them.
    """
    places = pc.index_in(ids, value_set=columns.whole(table["id"]))
    if places.null_count:
        lost = ids.filter(places.is_null())[0].as_py()
        raise InputError(f"{stage}: the shard has no row for id {lost!r}", f"delete {stage}/ and run again")
    return places


_ORDER = [("id", "ascending"), ("home", "ascending"), ("place", "ascending")]


def _span(run: Run, stage: str, shard: int) -> tuple[str, str]:
    about = run.about(stage, shard)
    if about is not None and about.span is not None:
        return about.span
    ends = pc.min_max(run.read(stage, shard)["id"]).as_py()
    return ends["min"] or "", ends["max"] or ""
