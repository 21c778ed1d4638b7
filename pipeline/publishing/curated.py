"""The pairs of a run as a person has left them (``pipeline.base.marks``): what is published, and counted."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.base import columns
from pipeline.base import marks as marked
from pipeline.base import model_names as models
from pipeline.base.marks import ACCEPT, REJECT, SWAP, Marks, PairKey
from pipeline.running.store import Run

#: The reason of a pair that was rejected, and how the policy of one ends that was swapped.
REJECTED, SWAPPED = "rejected_by_hand", ":swapped"


@dataclass(frozen=True)
class Curation:
    """Does to the pairs of a shard what their marks say. State: ``applied``, which counts it over all shards."""

    marks: Marks
    applied: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, run: Run) -> Curation:
        """
        Raises:
            InputError: the file of marks is malformed.
        """
        return cls(marked.read(run.path))

    def __call__(self, pairs: pa.Table, sample: pa.Table) -> pa.Table:
        """The rows of ``pairs`` in their order. One that was rejected stays with that reason and is no pair any more;
        in one that was swapped the texts, with their scores, have changed places. Without marks, the table itself."""
        if not self.marks:
            return pairs
        of_marked = pc.and_(pc.is_in(columns.whole(pairs["id"]), value_set=self._ids), pairs["chosen"].is_valid())
        places = np.flatnonzero(columns.bools(of_marked))
        if not len(places):
            return pairs
        rows = pairs.take(pa.array(places)).to_pylist()
        texts = _texts(sample, {row["id"] for row in rows})
        curated = [self._row(row, texts.get(row["id"], [])) for row in rows]
        others = np.setdiff1d(np.arange(pairs.num_rows), places)
        schema = pairs.schema.remove_metadata()
        together = [
            pairs.take(pa.array(others)).replace_schema_metadata(None),
            pa.Table.from_pylist(curated, schema=schema),
        ]
        return pa.concat_tables(together).take(pa.array(np.argsort(np.concatenate([others, places]))))

    def published_pairs(self, pairs: pa.Table, sample: pa.Table) -> pa.Table:
        """The pairs of a shard that are published, by id and then by the places of their texts, with a column ``pair``
        that tells those of one prompt apart."""
        curated = self(pairs, sample)
        curated = curated.filter(curated["chosen"].is_valid())
        return _number_pairs(curated.sort_by([(name, "ascending") for name in ("id", "chosen", "rejected")]))

    def rows_digest(self) -> dict[str, str]:
        """What of the marks changes published rows, for the record of what is published; nothing if nothing does."""
        changing = sorted((*key, mark) for key, mark in self.marks.items() if mark != ACCEPT)
        return {"marks": models.digest(json.dumps(changing))} if changing else {}

    def card_digest(self) -> dict[str, str]:
        """All that the card says of them."""
        return (
            {"marks": models.digest(json.dumps(sorted((*key, mark) for key, mark in self.marks.items())))}
            if (self.marks)
            else {}
        )

    @cached_property
    def _ids(self) -> pa.Array:
        return pa.array(sorted({key.id for key in self.marks}), pa.string())

    def _row(self, row: dict[str, Any], texts: list[str]) -> dict[str, Any]:
        key = key_of(row, texts)
        mark = self.marks.get(key) if key is not None else None
        if mark is None:
            return row  # if its texts are not there, whoever reads it says so
        self.applied[mark] += 1
        if mark == REJECT:
            nothing = dict.fromkeys(("chosen", "rejected", "chosen_score", "rejected_score", "margin"))
            return {**row, **nothing, "reason": REJECTED}
        if mark == SWAP:
            margin = None if row["margin"] is None else -row["margin"]
            scores = {"chosen_score": row["rejected_score"], "rejected_score": row["chosen_score"]}
            policy = f"{row['policy'] or ''}{SWAPPED}"
            return {
                **row,
                "chosen": row["rejected"],
                "rejected": row["chosen"],
                **scores,
                "margin": margin,
                "policy": policy,
            }
        return row


def _number_pairs(pairs: pa.Table) -> pa.Table:
    """Sorted by ``id``, with a column that tells the pairs of one prompt apart."""
    first = pc.index_in(columns.whole(pairs["id"]), value_set=pc.unique(pairs["id"])).to_numpy()
    begins = np.flatnonzero(np.diff(first, prepend=-1))
    number = np.arange(len(first)) - begins[first]
    return pairs.append_column("pair", pa.array(number, pa.int32()))


def key_of(pair: Mapping[str, Any], texts: Sequence[str]) -> PairKey | None:
    """What a row of the pairs is marked by; ``texts`` are those of its prompt's candidates. None if it is no pair."""
    places = (pair["chosen"], pair["rejected"])
    if any(place is None or not 0 <= place < len(texts) for place in places):
        return None
    return PairKey(pair["id"], *(texts[place] or "" for place in places))


def keys(pairs: pa.Table, sample: pa.Table, ids: Collection[str]) -> Iterator[PairKey]:
    """The pairs of these prompts, of one shard."""
    rows = pairs.filter(pc.is_in(pairs["id"], value_set=pa.array(sorted(ids), pa.string()))).to_pylist()
    texts = _texts(sample, {row["id"] for row in rows})
    yield from filter(None, (key_of(row, texts.get(row["id"], ())) for row in rows))


def _texts(sample: pa.Table, ids: set[str]) -> dict[str, list[str]]:
    wanted = sample.filter(pc.is_in(sample["id"], value_set=pa.array(sorted(ids), pa.string())))
    sizes, texts = columns.counts(wanted["candidates"]), columns.items(wanted["candidates"], "text").to_pylist()
    starts = columns.starts(sizes).tolist()
    return {
        row_id: texts[begin:end]
        for row_id, begin, end in zip(wanted["id"].to_pylist(), starts, starts[1:], strict=False)
    }
