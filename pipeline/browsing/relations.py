"""The tables of a run as flat relations for a query engine, made shard by shard when a query reads them.

``place`` is the number of a prompt in the run: in the order of its shards, and of its rows in the source.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.base import columns
from pipeline.base.columns import Ints
from pipeline.publishing.collect import source_names
from pipeline.publishing.outcomes import outcomes
from pipeline.running import joined
from pipeline.running.joined import Joined
from pipeline.running.store import Run

PROMPTS = pa.schema(
    [
        ("place", pa.int32()),
        ("shard", pa.int32()),
        ("id", pa.string()),
        ("source", pa.string()),
        ("outcome", pa.string()),
    ]
)
#: ``number`` tells the rows of a prompt apart; those that are no pair have a ``reason`` and no texts.
PAIRS = pa.schema(
    [
        *((name, pa.int32()) for name in ("place", "number", "chosen", "rejected")),
        *(("policy", pa.string()), ("margin", pa.float64()), ("reason", pa.string())),
    ]
)
MODELS = pa.schema([("place", pa.int32()), ("model", pa.string())])
VALUES = pa.schema([("place", pa.int32()), ("candidate", pa.int32()), ("value", pa.float64())])
#: Everything that is written in a prompt and in its candidates.
WORDS = pa.schema([("place", pa.int32()), ("text", pa.string())])


def shards(run: Run) -> Iterator[tuple[int, Joined]]:
    """Every shard with the place of its first prompt."""
    base = 0
    for of in joined.shards(run):
        yield base, of
        base += len(of.ids)


def prompts(base: int, of: Joined) -> pa.Table:
    count = len(of.ids)
    each = [
        *(np.arange(base, base + count), np.full(count, of.shard)),
        *(columns.whole(of.ids), source_names(of.source["source"]), outcomes(of)),
    ]
    return pa.table([pa.array(values) if isinstance(values, np.ndarray) else values for values in each],
                    names=PROMPTS.names).cast(PROMPTS)  # fmt: skip


def pairs(base: int, of: Joined) -> pa.Table:
    begins = np.searchsorted(of.prompt, of.prompt)  # they stand in the order of the prompts
    table = of.pairs.select(["chosen", "rejected", "policy", "margin", "reason"])
    return pa.table(
        [pa.array(of.prompt + base), pa.array(np.arange(len(of.prompt)) - begins), *table.columns], names=PAIRS.names
    ).cast(PAIRS)


def models(base: int, of: Joined) -> pa.Table:
    """The model of every candidate."""
    places = columns.rows(of.sizes) + base
    return pa.table([pa.array(places), pc.struct_field(of.texts, "model")], names=MODELS.names).cast(MODELS)


def values(base: int, of: Joined, score: str) -> pa.Table:
    """What a score says of each candidate; only of those of which it says something."""
    at = np.flatnonzero(columns.bools(pc.equal(of.scored.name, score)))
    rows = of.scored.row[at]
    sizes = of.sizes[rows]
    places, candidates = np.repeat(rows, sizes) + base, columns.ranges(np.zeros(len(rows), np.int64), sizes)
    numbers = of.scored.values.take(pa.array(columns.ranges(of.scored.begins[at], sizes)))
    table = pa.table([pa.array(places), pa.array(candidates), numbers], names=VALUES.names).cast(VALUES)
    return table.filter(pc.is_finite(pc.fill_null(table["value"], np.nan)))


def words(base: int, of: Joined) -> pa.Table:
    messages = of.source["prompt"]
    message_texts = (columns.rows(columns.counts(messages)), columns.items(messages, "content"))
    candidate_texts = (columns.rows(of.sizes), pc.struct_field(of.texts, "text"))
    return pa.concat_tables([_words(base, *message_texts), _words(base, *candidate_texts)])


def _words(base: int, rows: Ints, texts: Any) -> pa.Table:
    return pa.table([pa.array(rows + base), texts], names=WORDS.names).cast(WORDS)


def reader(tables: Iterator[pa.Table], schema: pa.Schema) -> pa.RecordBatchReader:
    """What a query engine reads, one shard at a time."""
    return pa.RecordBatchReader.from_batches(schema, (batch for table in tables for batch in table.to_batches()))
