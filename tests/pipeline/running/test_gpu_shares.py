"""Several small models on one GPU, which Ray pretends to have."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from pipeline.base.errors import EngineError
from pipeline.running.pool import _check_resources
from pipeline.scoring.config import Score
from pipeline.scoring.stage import ModelScoreStage

#: In a process of its own: this one may be connected to another Ray.
SCRIPT = """
import json, os, sys, time
from dataclasses import dataclass

import ray

sys.path.insert(0, sys.argv[2])
from stage_kit import Double, put_prompts

from pipeline.running.executor import Executor
from pipeline.running.stage import WorkerSpec
from pipeline.running.store import Run


@dataclass(frozen=True)
class Open:
    def __call__(self):
        return os.environ.get("CUDA_VISIBLE_DEVICES"), os.getpid()


@dataclass(frozen=True)
class Shared(Double):
    gpus: float = 0.25
    count: int | str = 4
    folder: str = sys.argv[1]

    @property
    def worker(self):
        return WorkerSpec(f"{self.count} of {self.gpus:g}", Open(), gpus=self.gpus, count=self.count)

    def process(self, model, tables):
        time.sleep(0.5)
        with open(os.path.join(self.folder, "who"), "a") as file:
            file.write(f"{model[0]} {model[1]}\\n")
        return super().process(None, tables)


if __name__ == "__main__":
    ray.init(num_cpus=8, num_gpus=1, include_dashboard=False, address="local")
    run = Run(os.path.join(sys.argv[1], "run"))
    put_prompts(run, shards=16)
    problem = None
    with Executor(run) as executor:
        executor.run(Shared())
        try:
            executor.run(Shared(factor=3, gpus=0.6, count=2))
        except Exception as error:
            problem = str(error)
    print("SAID" + json.dumps(problem))
    ray.shutdown()
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("shares")
    script = folder / "script.py"
    script.write_text(SCRIPT)
    kit = Path(__file__).parents[2] / "kit"
    run = subprocess.run(
        [sys.executable, str(script), str(folder), str(kit)], capture_output=True, text=True, timeout=400, check=False
    )
    lines = [line for line in run.stdout.splitlines() if line.startswith("SAID")]
    assert lines, run.stderr[-3000:]
    return {"problem": json.loads(lines[0].removeprefix("SAID")), "who": (folder / "who").read_text().splitlines()}


def test_four_quarters_work_on_one_gpu(said: dict[str, Any]) -> None:
    seen = {tuple(line.split()) for line in said["who"]}
    assert {device for device, _ in seen} == {"0"} and len(seen) == 4


def test_two_that_do_not_fit_on_it_are_an_error_not_a_wait(said: dict[str, Any]) -> None:
    assert said["problem"].startswith("2 workers of 2 of 0.6 need 2 GPUs, the cluster has 1")


@pytest.mark.parametrize(("count", "share", "gpus"), [(8, 0.25, 2), (2, 0.6, 2), (1, 1.0, 1), (10, 0.1, 1)])
def test_shares_are_of_one_gpu_each(count: int, share: float, gpus: int) -> None:
    cluster: Mapping[str, float] = {"CPU": 64.0, "GPU": float(gpus)}
    _check_resources("x", count, {"CPU": 1.0, "GPU": share}, cluster)
    with pytest.raises(EngineError, match=f"need {gpus + 1:g} GPUs, the cluster has {gpus}"):
        _check_resources("x", count + int(1 / share + 1e-6), {"CPU": 1.0, "GPU": share}, cluster)


@pytest.mark.parametrize("scorer", ["clip", "likelihood", "reward_model"])
def test_a_scorer_takes_the_share_that_it_is_given(scorer: str) -> None:
    def gpus(**options: Any) -> float:
        return ModelScoreStage(
            Score.model_validate({"scorers": [scorer], scorer: {"model": "m", **options}})
        ).worker.gpus

    assert (gpus(), gpus(gpus=0.25)) == (1.0, 0.25)
    with pytest.raises(ValueError, match="less than or equal to 1"):
        gpus(gpus=2)
