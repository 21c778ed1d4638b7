"""Small stages and tables that the tests of store, resume and executor share."""

from __future__ import annotations

import hashlib
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.base.errors import EngineError
from pipeline.base.tables import CANDIDATES, OK, PROMPTS
from pipeline.engines.scripted import Open
from pipeline.recipe.load import make_recipe
from pipeline.recipe.recipe import Recipe
from pipeline.running.stage import WorkerSpec
from pipeline.running.store import Run, make_record
from pipeline.sampling.config import Sample
from pipeline.sampling.stage import SampleStage
from pipeline.scenes import raster
from pipeline.scenes.world import scene
from pipeline.sources.admission.prompt_id import prompt_id
from pipeline.sources.admission.shards import place

SCHEMA = pa.schema([("id", pa.string()), ("value", pa.int64()), *((n, pa.string()) for n in OK)])


def recipe(tmp: Path | str, **changes: Any) -> Recipe:
    """A recipe that needs no model: scripted answers about four scenes."""
    values: dict[str, Any] = {
        "name": "run",
        "output_dir": str(tmp),
        "shard_size": 4,
        "source": {"scenes": 10, "questions_per_scene": 1},
        "sample": {"model": "canned", "n": 4, "engine": {"kind": "scripted", "texts": TEXTS}},
        "pair": {"weights": {"objects.hallucinated": -1, "correctness": 1}, "margin": 0.5, "max_length_ratio": 9},
    }
    return make_recipe({**values, **changes})


def pending(plan: str) -> dict[str, str]:
    """The stages that ``--plan`` says would run, with the reasons.

    >>> pending("│ pair │ 0 of 1 │ margin: 0.5 -> 2 │\\n│      │        │ n: 1 -> 2        │\\n│ train │ 1 │ holds │")
    {'pair': 'margin: 0.5 -> 2 n: 1 -> 2'}
    """
    rows: list[list[str]] = []
    for line in plan.splitlines():
        cells = [cell.strip() for cell in line.split("│")[1:-1]]
        if len(cells) == 3 and cells[0]:
            rows.append([cells[0], cells[2]])
        elif len(cells) == 3 and rows:
            rows[-1][1] += f" {cells[2]}"
    return {name: reasons for name, reasons in rows if reasons != "holds"}


TEXTS = ["The image shows a sun.", "The image shows a sun and an anchor.", "Yes.", "No.", "a cup, a horse and a king"]


def png(index: int = 0) -> bytes:
    return raster.png(scene(3, index))


def prompt_row(id: str, **changes: Any) -> dict[str, Any]:
    row = {"id": id, "images": [{"bytes": png(), "path": "a.png"}], "facts": None, "source": "test"}
    return {**row, "prompt": [{"role": "user", "content": "Describe the image."}], **OK, **changes}


def content_id(images: Sequence[bytes], prompt: Sequence[Mapping[str, str]]) -> str:
    """The id of a prompt, from the images themselves."""
    return prompt_id((hashlib.blake2b(image, digest_size=32).digest() for image in images), prompt)


def layout(ids: Sequence[str], size: int, before: Mapping[int, Sequence[str]]) -> dict[int, list[str]]:
    """Which ids lie in which shard, when those of ``before`` are there already."""
    rows = np.array(sorted(ids), dtype=str)
    old = ((shard, np.array(part, dtype=str)) for shard, part in before.items())
    return {shard: rows[at].tolist() for shard, at in place(rows, size, old)}


def candidate(text: str, **changes: Any) -> dict[str, Any]:
    return {"text": text, "origin": "sampled", "model": "m", "seed": 1, "finish_reason": "stop", **changes}


def put_prompts(run: Run, shards: int = 3, size: int = 2) -> list[str]:
    """A finished source with ids p0, p1, ..."""
    ids = [f"p{i}" for i in range(shards * size)]
    for shard in range(shards):
        rows = [prompt_row(id) for id in ids[shard * size : (shard + 1) * size]]
        run.write("source", shard, pa.Table.from_pylist(rows, schema=PROMPTS))
    run.save(make_record("source", 1, {"shard_size": size}, {}))
    return ids


@dataclass(frozen=True)
class Double:
    """A stage of the driver: ``value`` is ``factor`` times the number in the id."""

    factor: int = 2
    fail: frozenset[str] = frozenset()
    workers: int = 1

    name = "double"
    version = 1
    inputs = ("source",)
    schema = SCHEMA
    worker = None

    def options(self) -> dict[str, Any]:
        return {"factor": self.factor}

    def process(self, model: Any, tables: Mapping[str, pa.Table]) -> pa.Table:
        bad = {"status": "failed", "error_type": "unlucky", "error": "on the list"}
        rows = [
            {"id": id, "value": int(id[1:]) * self.factor, **(bad if id in self.fail else OK)}
            for id in tables["source"]["id"].to_pylist()
        ]
        return pa.Table.from_pylist(rows, schema=SCHEMA)

    def extras(self, table: pa.Table) -> dict[str, int]:
        return {}


@dataclass(frozen=True)
class Mismatched:
    """Opens a model with two warnings, as open_clip and transformers do."""

    def __call__(self) -> str:
        warnings.warn("QuickGELU mismatch, api_key=sk-0123456789abcdefghij", UserWarning, stacklevel=1)
        logging.getLogger("open_clip").warning("fell back to random weights")
        return "model"


@dataclass(frozen=True)
class Warns(Double):
    name: str = "first"

    @property
    def worker(self) -> WorkerSpec:
        return WorkerSpec("mismatched", Mismatched(), count=1)

    def process(self, model: Any, tables: Mapping[str, pa.Table]) -> pa.Table:
        logging.getLogger("vllm").warning("opened late by %s", self.name)
        return super().process(None, tables)


@dataclass(frozen=True)
class Chaos(SampleStage):
    """Sampling with an engine that misbehaves as ``opened`` says."""

    opened: Open = field(default_factory=Open)

    @property
    def worker(self) -> WorkerSpec:
        return WorkerSpec("chaos", self.opened)


def chaos(opened: Open, n: int = 2, name: str = "sample") -> Chaos:
    spec = Sample.model_validate({"model": "m", "n": n, "engine": {"kind": "scripted"}})
    return Chaos(spec, seed=0, name=name, opened=opened)


@dataclass(frozen=True)
class Missing:
    """Opens a model that is not there."""

    def __call__(self) -> Any:
        raise EngineError("folder X has no config.json", "give another")


@dataclass(frozen=True)
class NoModel:
    name = "none"
    version = 1
    inputs = ("source",)
    schema = CANDIDATES
    worker = WorkerSpec("missing", Missing())

    def options(self) -> dict[str, Any]:
        return {}

    def process(self, model: Any, tables: Mapping[str, pa.Table]) -> pa.Table:
        raise AssertionError("never reached")

    def extras(self, table: pa.Table) -> dict[str, int]:
        return {}


def generated(tmp: Path | str, **changes: Any) -> Any:
    """A run up to its pairs; scripted, and formulas only, so without Ray."""
    from pipeline.engines.scripted import ScriptedEngine
    from pipeline.recipe import naming
    from pipeline.recipe.plan import Plan, run_stage
    from pipeline.running.executor import Executor, process_shard
    from pipeline.running.store import Run

    plan = Plan(recipe(tmp, score={"scorers": ["objects", "correctness"]}, **changes))
    run = Run(plan.recipe.run_dir)
    with Executor(run) as executor:
        for stage in plan.generation():
            if stage.name == "sample":
                engine = ScriptedEngine(plan.recipe.sample.engine.texts)  # type: ignore[union-attr]
                for shard in run.shards("source"):
                    process_shard(stage, engine, run, shard)
            else:
                run_stage(executor, stage, "if-possible")
            if stage.name == "source":
                naming.check(run, "source", plan.recipe)
    return run
