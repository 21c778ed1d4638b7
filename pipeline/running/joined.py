"""A run shard by shard, the tables of its stages joined: every prompt with its texts, their scores and its pairs.

Joined by id, not by place. Stages that have not run yet, or not on every shard, leave nulls. One shard is in memory at
a time, four of a run that is not on this machine. Imports no torch.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.base import columns
from pipeline.base.ahead import ahead
from pipeline.base.columns import Ints
from pipeline.base.errors import InputError
from pipeline.base.tables import CANDIDATES, PAIRS, SCORES
from pipeline.running.store import Run

#: Makes of the pairs and the candidates of a shard the pairs that count.
Curate = Callable[[pa.Table, pa.Table], pa.Table]
#: The stages whose tables are read, in order.
STAGES = ("source", "sample", "score", "pair")
#: Tables that are read at a time where they are far away: those of four shards.
_AHEAD = 4 * len(STAGES)


@dataclass(frozen=True, slots=True)
class Example:
    """One preference pair with everything that explains it. ``scores`` maps a name to (chosen, rejected); ``shard`` is
    where its prompt lies."""

    id: str
    source: str
    prompt: str
    facts: Mapping[str, Any] | None
    chosen: Mapping[str, Any]
    rejected: Mapping[str, Any]
    policy: str
    margin: float | None
    scores: Mapping[str, tuple[float | None, float | None]]
    shard: int = field(compare=False)

    @property
    def is_question(self) -> bool:
        return bool(self.facts) and (self.facts or {}).get("answer") is not None


@dataclass(frozen=True)
class Joined:
    """One shard. ``source``, ``sample`` and ``score`` have the rows of the same prompts, ``ids``; a stage that does not
    know one has nulls for it. ``pairs`` stand in the order of the prompts, ``prompt`` is the row each belongs to.

    ``texts`` are the candidates of all prompts, one after the other, ``sizes`` how many each has, ``scored`` their
    scores.
    """

    shard: int
    ids: Any
    source: pa.Table
    sample: pa.Table
    score: pa.Table
    pairs: pa.Table
    prompt: Ints
    sizes: Ints
    texts: Any
    scored: columns.Scored

    @classmethod
    def of(cls, shard: int, tables: Mapping[str, pa.Table], curate: Curate | None = None) -> Joined:
        """``curate`` has the last word about the pairs.

        Raises:
            InputError: a score does not have one value for each candidate.
        """
        source = tables["source"]
        ids = columns.whole(source["id"])
        sample, score = (columns.align(tables[stage], ids) for stage in ("sample", "score"))
        pairs = tables["pair"] if curate is None else curate(tables["pair"], tables["sample"])
        # Every pair belongs to a prompt; in their order, and that of the pairs of each.
        prompt = pc.index_in(columns.whole(pairs["id"]), value_set=ids)
        order = pc.sort_indices(pa.table({"prompt": prompt}), [("prompt", "ascending")]).slice(
            0, len(prompt) - prompt.null_count
        )
        sizes = columns.counts(sample["candidates"])
        return cls(
            shard=shard,
            ids=ids,
            source=source,
            sample=sample,
            score=score,
            pairs=pairs.take(order),
            prompt=columns.ints(prompt.take(order), -1),
            sizes=sizes,
            texts=columns.items(sample["candidates"]),
            scored=columns.Scored.of(ids, score["scores"], sizes),
        )

    def complete_pairs(self) -> tuple[pa.Table, Ints]:
        """The pairs that have a chosen and a rejected text, and the row of each one's prompt.

        Raises:
            InputError: one of the two is no candidate of the prompt.
        """
        rows = np.flatnonzero(columns.ok(self.pairs) & columns.bools(self.pairs["chosen"].is_valid()))
        pairs, prompt = self.pairs.take(pa.array(rows)), self.prompt[rows]
        chosen, rejected = (columns.ints(pairs[side], -1) for side in ("chosen", "rejected"))
        sizes = self.sizes[prompt]
        for wrong in np.flatnonzero((np.minimum(chosen, rejected) < 0) | (np.maximum(chosen, rejected) >= sizes))[:1]:
            raise InputError(
                f"pair, shard {self.shard}: id {self.ids[prompt[wrong]].as_py()!r} pairs candidates {chosen[wrong]} "
                f"and {rejected[wrong]} of {sizes[wrong]}",
                "delete the pair directory and run the stage again",
            )
        return pairs, prompt

    def example(self, pair: pa.Table, row: int) -> Example:
        """``pair`` is one row of ``complete_pairs``, of the prompt in row ``row``."""
        (made,) = pair.to_pylist()
        (prompt,) = self.source.slice(row, 1).select(["id", "source", "prompt", "facts"]).to_pylist()
        candidates = self.sample["candidates"][row].as_py()
        better, worse = made["chosen"], made["rejected"]
        values = self.scored.values
        scores = {
            self.scored.name[at].as_py(): tuple(values[self.scored.begins[at] + i].as_py() for i in (better, worse))
            for at in np.flatnonzero(self.scored.row == row).tolist()
        }
        return Example(
            id=prompt["id"],
            source=prompt["source"] or "",
            prompt="\n".join(message["content"] for message in prompt["prompt"] if message["role"] == "user"),
            facts=prompt["facts"],
            chosen=candidates[better],
            rejected=candidates[worse],
            policy=made["policy"] or "",
            margin=made["margin"],
            scores=scores,
            shard=self.shard,
        )


def shards(run: Run, curate: Curate | None = None) -> Iterator[Joined]:
    """
    Raises:
        InputError: there is no ``source`` table.
    """
    done = {stage: run.shards(stage) for stage in STAGES}
    if not done["source"]:
        raise InputError(f"{run.path} has no source/data-*.arrow", "give the directory of a run that has been started")
    empty = {"sample": CANDIDATES, "score": SCORES, "pair": PAIRS}
    there = {stage: set(numbers) for stage, numbers in done.items()}

    def read(key: tuple[int, str]) -> pa.Table:
        shard, stage = key
        return run.read(stage, shard) if shard in there[stage] else empty[stage].empty_table()

    keys = itertools.product(done["source"], STAGES)
    tables = ahead(read, keys, run.path, _AHEAD)
    for shard in done["source"]:
        yield Joined.of(shard, dict(zip(STAGES, itertools.islice(tables, len(STAGES)), strict=True)), curate)
