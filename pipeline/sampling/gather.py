"""Put the answers of several models to the same prompts into one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.base import columns
from pipeline.base.tables import CANDIDATES


@dataclass(frozen=True)
class GatherStage:
    """``inputs`` are candidates tables, in the order in which their candidates follow each other.

    A prompt that only some models could answer has the candidates of those; it fails where all did.
    """

    inputs: tuple[str, ...]

    name = "sample"
    version = 1
    schema = CANDIDATES
    worker = None

    def options(self) -> dict[str, Any]:
        return {"models": list(self.inputs)}

    def process(self, model: Any, tables: Mapping[str, pa.Table]) -> pa.Table:
        first = tables[self.inputs[0]]
        ids = columns.whole(first["id"])
        parts = [columns.align(tables[name], ids)["candidates"] for name in self.inputs]
        lists = columns.join_lists(parts)
        good = np.any([columns.ok(tables[name]) for name in self.inputs], axis=0)
        some = pa.array(good)
        return pa.table(
            {
                "id": ids,
                "candidates": pc.if_else(some, lists, None),
                "status": pc.if_else(some, "ok", "failed"),
                **{name: pc.if_else(some, None, columns.whole(first[name])) for name in ("error_type", "error")},
            },
            schema=CANDIDATES,
        )

    def extras(self, table: pa.Table) -> dict[str, int]:
        return {}
