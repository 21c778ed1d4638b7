"""The stage that makes pairs of scored candidates: tables in, the rule prompt by prompt, a table out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pyarrow as pa

from pipeline.base import columns, plugins
from pipeline.base.errors import InputError
from pipeline.base.tables import OK, PAIRS
from pipeline.pairing.config import Pair
from pipeline.pairing.rule import Row, make_pairs

#: All that the rule reads of a candidate.
_FIELDS = ("text", "finish_reason", "on_policy", "origin", "parent", "model")


@dataclass(frozen=True)
class PairStage:
    """``seed`` is the run's. Prompts are read only for the gates that compare a text with its prompt; of their table
    the images are not."""

    spec: Pair
    seed: int = 0

    name = "pair"
    version = 6
    schema = PAIRS
    worker = None

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("sample", "score", *(("source",) if self.spec.gates.read_prompts else ()))

    def options(self) -> dict[str, Any]:
        drawn = {"seed": self.seed} if self.spec.policy == "best_vs_random" else {}
        options = self.spec.model_dump(mode="json", exclude={"options"})
        if (plug_in := self.spec.plug_in()) is not None:
            options["policy"] = plugins.identity(plug_in, self.spec.policy)
        return {**options, **drawn}

    def process(self, model: Any, tables: Mapping[str, pa.Table]) -> pa.Table:
        return pairs_of(tables["sample"], tables["score"], self.spec, tables.get("source"), self.seed)

    def extras(self, table: pa.Table) -> dict[str, int]:
        return {"pairs": len(table) - table["chosen"].null_count}


def pairs_of(
    sample: pa.Table, score: pa.Table, policy: Pair, source: pa.Table | None = None, seed: int = 0
) -> pa.Table:
    """``make_pairs`` of tables, in the order of ``sample``. ``source`` has the prompts.

    Raises:
        ConfigError: a weight or a veto names a score that no row has.
        InputError: a score does not have one value for each candidate.
    """
    candidates, scores = list(_candidates(sample)), list(_scores(score))
    _check_sizes(candidates, scores)
    prompts = None
    if source is not None:
        prompts = dict(zip(source["id"].to_pylist(), questions(source["prompt"]), strict=True))
    return pa.Table.from_pylist(make_pairs(candidates, scores, policy, prompts, seed), schema=PAIRS)


def questions(prompts: Any) -> list[str]:
    """What the user says in each of a column of conversations."""
    sizes = columns.counts(prompts)
    roles, contents = (columns.items(prompts, name).to_pylist() for name in ("role", "content"))
    first = columns.starts(sizes).tolist()
    return [
        "\n".join(contents[i] or "" for i in range(begin, end) if roles[i] == "user") for begin, end in pairwise(first)
    ]


def _candidates(sample: pa.Table) -> Iterator[Row]:
    """Field by field, which is several times as fast as ``to_pylist`` of the whole."""
    text, finish_reason, on_policy, origin, parent, model = (
        columns.items(sample["candidates"], name).to_pylist() for name in _FIELDS
    )
    items = [
        {"text": a, "finish_reason": b, "on_policy": c, "origin": d, "parent": e, "model": f}
        for a, b, c, d, e, f in zip(text, finish_reason, on_policy, origin, parent, model, strict=True)
    ]
    first = columns.starts(columns.counts(sample["candidates"])).tolist()
    for row, (begin, end) in zip(sample.select(["id", *OK]).to_pylist(), pairwise(first), strict=True):
        yield {**row, "candidates": items[begin:end]}


def _scores(score: pa.Table) -> Iterator[Row]:
    values = columns.items(score["scores"], "values")
    numbers, ends = columns.items(values).to_pylist(), columns.starts(columns.counts(values)).tolist()
    names = columns.items(score["scores"], "name").to_pylist()
    first = columns.starts(columns.counts(score["scores"])).tolist()
    present = [
        name for name in ("id", *OK, "unknown") if name in score.column_names
    ]  # earlier tables have no `unknown`
    for row, (begin, end) in zip(score.select(present).to_pylist(), pairwise(first), strict=True):
        scores = [{"name": names[i], "values": numbers[ends[i] : ends[i + 1]]} for i in range(begin, end)]
        yield {**row, "scores": scores}


def _check_sizes(candidates: list[Row], scores: list[Row]) -> None:
    sizes = {row["id"]: len(row["candidates"]) for row in candidates if row["status"] == "ok"}
    for row in scores:
        for score in row["scores"] if row["status"] == "ok" and row["id"] in sizes else ():
            if len(score["values"]) != sizes[row["id"]]:
                raise InputError(
                    f"score: id {row['id']!r} has {len(score['values'])} values of {score['name']} "
                    f"for {sizes[row['id']]} candidates",
                    "delete the score directory and run the stage again",
                )
