"""Candidates that nobody samples: the answers that came with the prompts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import pyarrow as pa

from pipeline.base.tables import CANDIDATES, OK, error_status, stage_table
from pipeline.sources.config import PdsSource
from pipeline.sources.readers import files, pds


@dataclass(frozen=True)
class GivenStage:
    """Two candidates of origin ``given`` for every prompt: the chosen answer of the file, then the rejected one.

    It stands where ``SampleStage`` would, without an engine: an engine gets the question and has to be asked for a
    number of answers, and here neither the images need be opened nor a worker be started.

    An answer is found by its prompt's ``source``, the place in the file. Where several items have the same images and
    question, the prompts table has the first (the others are in ``dropped/``), and so it is that item's answers that
    stand here: two, never a mixture, so the first is the chosen one.
    """

    spec: PdsSource
    name: str = "sample"

    version = 1
    inputs = ("source",)
    schema = CANDIDATES
    worker = None

    def options(self) -> dict[str, Any]:
        return {"engine": {"kind": "given"}, "content": pds.stamp(self.spec)}

    def process(self, model: Any, tables: Mapping[str, pa.Table]) -> pa.Table:
        answers = _answers(self.spec, tuple(files.stamp(path, whole=False) for path in files.expand(self.spec.path)))
        rows = tables["source"].select(["id", "source", *OK]).to_pylist()
        return stage_table([_row(row, answers.get(row["source"])) for row in rows], CANDIDATES)

    def extras(self, table: pa.Table) -> dict[str, int]:
        return {}


def _row(row: Mapping[str, Any], answers: tuple[str, str] | None) -> dict[str, Any]:
    if row["status"] != "ok":
        return {"id": row["id"], **error_status(row["error_type"], row["error"])}
    if answers is None:
        return {"id": row["id"], **error_status("no_given_answer", f"the source has no item {row['source']} any more")}
    # Whoever wrote them, it is not known how: all that a sampler would say stays null.
    return {"id": row["id"], "candidates": [{"text": text, "origin": "given"} for text in answers], **OK}


@lru_cache(maxsize=1)
def _answers(spec: PdsSource, stamps: tuple[str, ...]) -> dict[str, tuple[str, str]]:
    """All answers of a source, once per process; ``stamps`` change with the files."""
    return {source: (chosen, rejected) for source, chosen, rejected in pds.answers(spec)}
