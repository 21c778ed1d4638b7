"""An engine that is asked again for what is missing, and a stage that asks it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.engines.protocol import Completion, Request, Response, Sampling
from pipeline.running.executor import process_shard
from pipeline.running.resume import prepare
from pipeline.running.store import Run, Survey
from pipeline.sampling.config import Sample
from pipeline.sampling.stage import SampleStage


@dataclass
class Seeded:
    """Sample ``i`` of a request depends on seed + i alone, as with vLLM; writes down what it was asked."""

    refuse: dict[str, str] = field(default_factory=dict)
    requests: list[tuple[str, int, int, float]] = field(default_factory=list)

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Response]:
        for request in requests:
            self.requests.append((request.id, sampling.n, sampling.max_tokens, sampling.temperature))
            if request.id in self.refuse:
                yield Response(request.id, error_type=self.refuse[request.id], error="not now")
                continue
            yield Response(request.id, tuple(self._one(request.seed + i, sampling) for i in range(sampling.n)))

    def _one(self, seed: int, sampling: Sampling) -> Completion:
        words = [f"w{(seed + k) % 97}" for k in range(seed % 9 + 1)]
        cut = len(words) > sampling.max_tokens
        words = words[: sampling.max_tokens]
        return Completion(" ".join(words), len(words), "length" if cut else "stop", -float(len(words)))


def stage(**changes: Any) -> SampleStage:
    values = {"model": "m", "n": 6, "max_tokens": 4, "engine": {"kind": "scripted"}, **changes}
    return SampleStage(Sample.model_validate(values), seed=0)


def sample(run: Run, spec: SampleStage, engine: Seeded) -> pa.Table:
    plan = prepare(run, spec, "if-possible", Survey(run))
    for shard in run.shards("source"):
        if shard not in plan.done:
            process_shard(spec, engine, run, shard, plan.record)
    return run.table("sample")
