"""A run of prompts with two texts each, the first one chosen, as its tables alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
from stage_kit import prompt_row

from pipeline.base.tables import CANDIDATES, OK, PAIRS, PROMPTS, SCORES
from pipeline.running.store import Run


def build(folder: Path, rows: list[dict[str, Any]], shards: int = 1) -> Run:
    """A row: image, answer, chosen, rejected, logps, and what else ``stage_kit.prompt_row`` takes under ``about``."""
    tables: dict[str, list[dict[str, Any]]] = {"source": [], "sample": [], "score": [], "pair": []}
    for i, row in enumerate(rows):
        id = f"{i:04d}"
        facts = {"answer": row.get("answer"), "objects": []}
        images = [{"bytes": row["image"], "path": None}]
        tables["source"].append(prompt_row(id, images=images, facts=facts, **row.get("about", {})))
        like = {"origin": "sampled", "model": "m", "finish_reason": "stop"}
        texts = [{"text": row[side], **like} for side in ("chosen", "rejected")]
        tables["sample"].append({"id": id, "candidates": texts, **OK})
        logps = [{"name": "likelihood", "version": "1", "values": row["logps"]}] if "logps" in row else []
        tables["score"].append({"id": id, "scores": logps, **OK})
        tables["pair"].append({"id": id, "policy": "p", "chosen": 0, "rejected": 1, **OK})
    run = Run(folder)
    size = -(-len(rows) // shards)
    for name, schema in (("source", PROMPTS), ("sample", CANDIDATES), ("score", SCORES), ("pair", PAIRS)):
        for shard in range(shards):
            part = tables[name][shard * size : (shard + 1) * size]
            run.write(name, shard, pa.Table.from_pylist(part, schema=schema))
    return run
