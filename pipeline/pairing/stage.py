"""The stage that makes pairs of scored candidates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.base.tables import PAIRS
from pipeline.pairing import pair_columns
from pipeline.pairing.config import Pair


@dataclass(frozen=True)
class PairStage:
    """``seed`` is the run's. Prompts are read only for the gates that compare a text with its prompt; of their table
    the images are not."""

    spec: Pair
    seed: int = 0

    name = "pair"
    version = 4
    schema = PAIRS
    worker = None

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("sample", "score", *(("source",) if self.spec.gates.read_prompts else ()))

    def options(self) -> dict[str, Any]:
        drawn = {"seed": self.seed} if self.spec.policy == "best_vs_random" else {}
        return {**self.spec.model_dump(mode="json"), **drawn}

    def process(self, model: Any, tables: Mapping[str, pa.Table]) -> pa.Table:
        return pair_columns.make_pairs(tables["sample"], tables["score"], self.spec, tables.get("source"), self.seed)

    def extras(self, table: pa.Table) -> dict[str, int]:
        return {"pairs": len(table) - table["chosen"].null_count}
