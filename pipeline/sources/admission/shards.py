"""Which prompt goes into which shard, and the tables of the shards."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.base.errors import InputError
from pipeline.base.tables import IMAGE, PROMPTS
from pipeline.sources.admission.prompt_id import IMAGES
from pipeline.sources.admission.sift import Array, Kept
from pipeline.sources.admission.spool import Blobs, Spool

#: Arrow's columns of bytes hold no more.
_MOST_BYTES = (1 << 31) - 1
_OPEN_BUCKETS = 4


def place(ids: Array, size: int, before: Iterable[tuple[int, Array]]) -> Iterator[tuple[int, Array]]:
    """Shard numbers, and positions in the sorted ``ids``. A shard of ``before`` stays if all of its ids are still
    there; the others fill the numbers that are free. A new shard ends between two images where it can with at least
    seven eighths of ``size``: then no image is opened for two.

    >>> [(shard, at.tolist()) for shard, at in place(np.array(["a", "b", "c", "d"]), 2, [(0, np.array(["b", "d"]))])]
    [(0, [1, 3]), (1, [0, 2])]
    """
    kept: dict[int, Array] = {}
    settled = np.zeros(len(ids), bool)
    for shard, old in before:
        at = np.searchsorted(ids, old)
        # A shard that is not full would have to change to take new ids: it stays as it is, too. Those that a killed
        # process had written stand beside those that it had not come to, and may hold the same ids.
        if len(old) <= size and (at < len(ids)).all() and (ids[at] == old).all() and not settled[at].any():
            kept[shard] = at
            settled[at] = True
    rest = np.flatnonzero(~settled)
    start, shard = 0, 0
    while kept or start < len(rest):
        if shard in kept:
            yield shard, kept.pop(shard)
        elif start < len(rest):
            end = _border(ids, rest, start, size)
            yield shard, rest[start:end]
            start = end
        shard += 1


def _border(ids: Array, rest: Array, start: int, size: int) -> int:
    """Where the shard from ``start`` on ends."""
    end = start + size
    for at in range(end, end - size // 8 - 1, -1) if end < len(rest) else ():
        if ids[rest[at - 1]][: IMAGES // 2] != ids[rest[at]][: IMAGES // 2]:
            return at
    return min(end, len(rest))


def cut(spool: Spool, kept: Kept, size: int, before: Iterable[tuple[int, Array]]) -> Iterator[tuple[int, pa.Table]]:
    """Shards of ``pipeline.base.tables.PROMPTS``, in order.

    Raises:
        InputError: the embedded images of one shard are more than Arrow can hold.
    """
    buckets: OrderedDict[int, pa.Table] = OrderedDict()
    for shard, positions in place(kept.ids, size, before):
        # Positions of a shard rise, and so do those of one shard after the other: few buckets are in use at a time.
        homes = np.searchsorted(kept.starts, positions, side="right") - 1
        parts = []
        for number in np.unique(homes).tolist():
            if number not in buckets:
                buckets[number] = spool.bucket(number)
                if len(buckets) > _OPEN_BUCKETS:
                    buckets.popitem(last=False)
            parts.append(buckets[number].take(pa.array(kept.rows[positions[homes == number]])))
        yield shard, _prompts(pa.concat_tables(parts).combine_chunks(), spool.blobs, shard)


def _prompts(table: pa.Table, blobs: Blobs, shard: int) -> pa.Table:
    columns = {name: table[name] for name in table.column_names if name != "pictures"}
    columns["images"] = _images(table["pictures"], blobs, shard)
    return pa.table([columns[name] for name in PROMPTS.names], schema=PROMPTS)


def _images(column: pa.ChunkedArray, blobs: Blobs, shard: int) -> pa.Array:
    pictures = column.combine_chunks()
    flat = pictures.flatten()
    places = list(zip(flat.field("offset").to_pylist(), flat.field("size").to_pylist(), strict=True))
    total = sum(size for offset, size in places if offset >= 0)
    if total > _MOST_BYTES:
        remedy = f"set shard_size to {max(1, len(column) * _MOST_BYTES // total // 2)} or less"
        raise InputError(f"shard {shard} of the source has {total} bytes of embedded images", remedy)
    data: list[Any] = [blobs.get(*place) if place[0] >= 0 else None for place in places]
    images = pa.StructArray.from_arrays([pa.array(data, pa.binary()), flat.field("path")], fields=list(IMAGE))
    lengths = np.array([0, *pictures.value_lengths().to_pylist()])
    return pa.ListArray.from_arrays(pa.array(np.cumsum(lengths), pa.int32()), images)
