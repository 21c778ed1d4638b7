"""Everything that the tables of a run say of a few prompts, wherever the run stands."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.base.images import image_files, pixels
from pipeline.running.joined import Example
from pipeline.running.store import Run

#: What a model said of candidates: ``score`` made values of it.
ASKED = ("ask-judge", "ask-claims")
DETECT = "detect"


@dataclass(frozen=True)
class PromptRow:
    """``source`` is the row of that table, and so are the others; None where the stage has none for the prompt.
    ``verdict_rows`` has those of the stages that asked a model."""

    id: str
    shard: int
    source: Mapping[str, Any]
    sample: Mapping[str, Any] | None = None
    score: Mapping[str, Any] | None = None
    pairs: Sequence[Mapping[str, Any]] = ()
    detected: Mapping[str, Any] | None = None
    verdict_rows: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @cached_property
    def candidates(self) -> Sequence[Mapping[str, Any]]:
        return [{**each, "text": each["text"] or ""} for each in (self.sample or {}).get("candidates") or ()]

    @property
    def scores(self) -> dict[str, Sequence[float | None]]:
        """Name -> one value for each candidate."""
        return {score["name"]: score["values"] for score in (self.score or {}).get("scores") or ()}

    @property
    def prompt(self) -> str:
        """What the user says in it."""
        return "\n".join(
            message["content"] or "" for message in self.source["prompt"] or () if message["role"] == "user"
        )

    def pictures(self) -> Iterator[bytes]:
        """Its encoded images, as far as they are still where they were."""
        for image in self.source["images"] or ():
            with contextlib.suppress(OSError, pixels.BadImage):
                yield image_files.load(image, pixels.MAX_BYTES)

    @property
    def is_question(self) -> bool:
        return (self.source["facts"] or {}).get("answer") is not None


def read(run: Run, shard: int, ids: Collection[str]) -> dict[str, PromptRow]:
    """The prompts of a shard with these ids. Of the tables, which are mapped into memory, little else is read.

    Raises:
        InputError: a shard is missing, or is not of its stage as that is now.
    """
    wanted = pa.array(list(ids), pa.string())
    sources = _rows(run, "source", shard, wanted)
    tables = {
        stage: {row["id"]: row for row in _rows(run, stage, shard, wanted)} for stage in ("sample", "score", *ASKED)
    }
    detected = _somewhere(run, DETECT, shard, wanted)
    pairs: dict[str, list[Mapping[str, Any]]] = {}
    for row in _rows(run, "pair", shard, wanted):
        pairs.setdefault(row["id"], []).append(row)
    return {
        (key := source["id"]): PromptRow(
            key,
            shard,
            source,
            tables["sample"].get(key),
            tables["score"].get(key),
            pairs.get(key, ()),
            detected.get(key),
            {stage: tables[stage][key] for stage in ASKED if key in tables[stage]},
        )
        for source in sources
    }


def by_shard(run: Run, examples: Iterable[Example]) -> dict[int, dict[str, PromptRow]]:
    """The prompts of the examples, by shard and id."""
    ids: dict[int, list[str]] = {}
    for example in examples:
        ids.setdefault(example.shard, []).append(example.id)
    return {shard: read(run, shard, of_shard) for shard, of_shard in ids.items()}


def _rows(run: Run, stage: str, shard: int, wanted: pa.Array) -> list[dict[str, Any]]:
    if not run.has_shard(stage, shard):
        return []
    table = run.read(stage, shard)
    rows: list[dict[str, Any]] = table.filter(pc.is_in(table["id"], value_set=wanted)).to_pylist()
    return rows


def _somewhere(run: Run, stage: str, near: int, wanted: pa.Array) -> dict[str, dict[str, Any]]:
    """Rows of a table whose shards may be others than those of the source."""
    rows = {row["id"]: row for row in _rows(run, stage, near, wanted)}
    missing = set(wanted.to_pylist()) - rows.keys()
    for shard in run.shards(stage) if missing else ():
        about = run.about(stage, shard)
        span = about.span if about is not None else None
        within = {key for key in missing if span is None or span[0] <= key <= span[1]}
        if shard != near and within:
            rows |= {row["id"]: row for row in _rows(run, stage, shard, pa.array(sorted(within), pa.string()))}
    return rows
