"""Ask a model for n answers to every prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline import models, seeds
from pipeline.config.sample import Sample, ScriptedEngine
from pipeline.engines import Engine, Request, Response, Sampling
from pipeline.stages import WorkerSpec
from pipeline.tables import CANDIDATES, OK, failed


@dataclass(frozen=True)
class SampleStage:
    """``reads`` names the prompts table. ``name`` is the stage's own: evaluation samples too."""

    spec: Sample
    seed: int
    name: str = "sample"
    reads: str = "source"

    version = 1
    schema = CANDIDATES

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.reads,)

    @property
    def worker(self) -> WorkerSpec:
        return worker(self.spec)

    def options(self) -> dict[str, Any]:
        return {"seed": self.seed, **self.spec.model_dump(mode="json"), "model_identity": self._identity()}

    def process(self, model: Engine, tables: Mapping[str, pa.Table]) -> pa.Table:
        rows = tables[self.reads].select(["id", "images", "prompt", "status", "error_type", "error"]).to_pylist()
        requests = [
            Request(
                id=row["id"],
                images=tuple(image["bytes"] for image in row["images"]),
                messages=tuple((message["role"], message["content"]) for message in row["prompt"]),
                seed=seeds.derive(self.seed, row["id"], self.spec.model),
            )
            for row in rows
            if row["status"] == "ok"
        ]
        sampling = Sampling(
            self.spec.n, self.spec.temperature, self.spec.top_p, self.spec.max_tokens, tuple(self.spec.stop)
        )
        answers = {response.id: response for response in model.generate(requests, sampling)} if requests else {}
        seed_of = {request.id: request.seed for request in requests}
        out = [
            self._row(row["id"], answers[row["id"]], seed_of[row["id"]])
            if row["id"] in answers
            else {"id": row["id"], **failed(row["error_type"], row["error"])}
            for row in rows
        ]
        return pa.Table.from_pylist(out, schema=CANDIDATES)

    def extras(self, table: pa.Table) -> dict[str, int]:
        rows = (candidates for candidates in table["candidates"].to_pylist() if candidates)
        return {"tokens": sum(candidate["n_tokens"] or 0 for row in rows for candidate in row)}

    def _row(self, one: str, response: Response, seed: int) -> dict[str, Any]:
        if response.error_type is not None:
            return {"id": one, **failed(response.error_type, response.error or "")}
        candidates = [
            {
                "text": completion.text,
                "origin": "sampled",
                "model": self.spec.model,
                "revision": self.spec.revision,
                # The engine numbers the samples of a request from its seed on.
                "seed": seed + index,
                "temperature": self.spec.temperature,
                "n_tokens": completion.n_tokens,
                "finish_reason": completion.finish_reason,
                "logprob": completion.logprob,
            }
            for index, completion in enumerate(response.completions)
        ]
        return {"id": one, "candidates": candidates, **OK}

    def _identity(self) -> str:
        if isinstance(self.spec.engine, ScriptedEngine):
            return f"scripted:{self.spec.model}"
        return models.identity(self.spec.model, self.spec.revision)


def worker(spec: Sample) -> WorkerSpec:
    """The processes that hold ``spec``'s model."""
    engine = spec.engine
    if isinstance(engine, ScriptedEngine):
        from pipeline.engines.scripted import Open

        return WorkerSpec(
            f"scripted:{spec.model}",
            Open(texts=engine.texts, seconds_per_request=engine.seconds_per_request),
            count=engine.workers,
        )
    from pipeline.engines.vllm import OpenVllm

    return WorkerSpec(
        kind=f"vllm:{spec.model}",
        open=OpenVllm(
            model=models.resolve(spec.model),
            revision=spec.revision,
            dtype=engine.dtype,
            max_model_len=engine.max_model_len,
            max_num_seqs=engine.max_num_seqs,
            gpu_memory_utilization=engine.gpu_memory_utilization,
            tensor_parallel_size=engine.tensor_parallel_size,
        ),
        gpus=float(engine.tensor_parallel_size),
        count=engine.workers,
    )
