"""Prompts from the tables of a run: one for each image that was kept and each question about it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.base.errors import InputError
from pipeline.running.store import Run
from pipeline.sources.readers.protocol import Entry, user_turn

#: The tables that are read; their rows are those of the first.
TABLES = ("imagine", "rank", "instruct")


def entries(run: Run, source: str) -> Iterator[Entry]:
    """What was drawn goes along as facts. Texts that failed in one of the stages have no prompts.

    Raises:
        InputError: a stage has not finished.
    """
    for shard in _shards(run):
        instructed = {row["id"]: row for row in run.read("instruct", shard).to_pylist()}
        for row in run.read("imagine", shard).to_pylist():
            for instruction in instructed[row["id"]]["instructions"] or ():
                if instruction["reason"] is None:
                    yield _entry(row, instruction, source)


def _entry(row: Mapping[str, Any], instruction: Mapping[str, Any], source: str) -> Entry:
    at = instruction["image"]
    image = row["images"][at]
    answer = {key: instruction[key] for key in ("question_type", "answer") if instruction[key] is not None}
    facts = {**(image["facts"] or {}), **answer} or None
    picture = {"bytes": image["bytes"], "path": f"{row['id']}-{at}.png"}
    return Entry([picture], user_turn(instruction["text"]), facts, source)


def _shards(run: Run) -> list[int]:
    texts = run.shards("texts")
    for name in TABLES:
        if not texts or run.shards(name) != texts:
            raise InputError(
                f"stage 'source' reads {name!r}, which has {len(run.shards(name))} of {len(texts)} shards",
                "run the stages of `imagine` first",
            )
    return texts
