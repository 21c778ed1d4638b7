"""AsyncLLM in a Ray actor, two shards at a time: the same texts as one shard after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
from stage_kit import png, prompt_row

from pipeline.base.tables import PROMPTS
from pipeline.running.executor import Executor, process_shard
from pipeline.running.store import Run, make_record
from pipeline.sampling.config import Sample
from pipeline.sampling.stage import SampleStage

BAD = {"bytes": b"no image", "path": "bad.png"}


def test_overlapping_shards_give_the_same_answers(tmp_path: Path, vllm_engine: Any, ray_cluster: None) -> None:
    tables = {}
    for overlap in (False, True):
        run = Run(tmp_path / str(overlap))
        for shard in range(3):
            rows = [
                prompt_row(f"{shard}{i}", images=[{"bytes": png(10 * shard + i), "path": "a.png"}]) for i in range(8)
            ]
            rows.append(prompt_row(f"{shard}8", images=[BAD]))
            # Found to be too long after its image was looked at, which the next one has, too.
            long = [{"role": "user", "content": "a " * 490}]
            rows.insert(0, {**rows[0], "id": f"{shard}9", "prompt": long})
            run.write("source", shard, pa.Table.from_pylist(rows, schema=PROMPTS))
        run.save(make_record("source", 1, {}, {}))
        stage = SampleStage(
            Sample.model_validate(
                {"model": "scenes-vlm", "n": 4, "max_tokens": 24, "engine": {"overlap": overlap, "max_num_seqs": 16}}
            ),
            seed=0,
        )
        if overlap:
            with Executor(run, max_failure_rate=0.5) as executor:
                result = executor.run(stage)
            assert (result.rows, result.failed) == (30, 6) and result.extras["tokens"] > 0
        else:
            for shard in range(3):
                process_shard(stage, vllm_engine, run, shard)
        tables[overlap] = run.table("sample").to_pylist()
    for alone, together in zip(tables[False], tables[True], strict=True):
        assert (alone["id"], alone["error_type"]) == (together["id"], together["error_type"])
        pairs = zip(alone["candidates"] or [], together["candidates"] or [], strict=True)
        for a, b in pairs:
            assert {k: v for k, v in a.items() if k != "logprob"} == {k: v for k, v in b.items() if k != "logprob"}
            assert abs(a["logprob"] - b["logprob"]) < 1e-3
