"""A head without GPUs and machines with some, pretended by Ray: what is read of it, and who works."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

#: In a process of its own: this one may be connected to another Ray.
SCRIPT = """
import json, os, sys
from dataclasses import dataclass
from pathlib import Path

from ray.cluster_utils import Cluster

sys.path.insert(0, sys.argv[2])
from stage_kit import Double, put_prompts

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0, "include_dashboard": False})
for _ in range(2):
    cluster.add_node(num_cpus=4, num_gpus=2, resources={"accelerator_type:H100": 1})
os.environ["RAY_ADDRESS"] = cluster.address

from pipeline.running.executor import Executor
from pipeline.running.pool import hardware
from pipeline.running.stage import WorkerSpec
from pipeline.running.store import Run


@dataclass(frozen=True)
class Open:
    def __call__(self):
        return os.environ.get("CUDA_VISIBLE_DEVICES"), os.getpid()


@dataclass(frozen=True)
class OnGpus(Double):
    name: str = "one"
    gpus: float = 1.0
    folder: str = sys.argv[1]

    @property
    def worker(self):
        return WorkerSpec(f"{self.gpus:g} GPUs", Open(), gpus=self.gpus, count="auto")

    def process(self, model, tables):
        with open(os.path.join(self.folder, "who"), "a") as file:
            file.write(f"{self.name} {model[0]} {model[1]}\\n")
        return super().process(None, tables)


if __name__ == "__main__":
    import ray

    folder = Path(sys.argv[1])
    found = hardware()
    said = {"gpus": found.gpus, "here": found.gpus_here, "dtype": found.dtype, "connected": ray.is_initialized()}
    run = Run(folder / "run")
    put_prompts(run, shards=9)
    pools = []
    with Executor(run) as executor:
        for name, gpus in (("one", 1.0), ("two", 2.0)):
            executor.run(OnGpus(name=name, gpus=gpus))
            pools.append(len(executor._workers.pool._slots))
    few = Run(folder / "few")
    put_prompts(few, shards=1)
    with Executor(few) as executor:
        executor.run(OnGpus(name="one", gpus=1.0))
        pools.append(len(executor._workers.pool._slots))
        put_prompts(few, shards=6)
        executor.run(OnGpus(name="one", gpus=1.0))
        pools.append(len(executor._workers.pool._slots))
    print("SAID" + json.dumps({**said, "pools": pools}))
    cluster.shutdown()
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("cluster")
    script = folder / "script.py"
    script.write_text(SCRIPT)
    kit = Path(__file__).parents[2] / "kit"
    run = subprocess.run(
        [sys.executable, str(script), str(folder), str(kit)], capture_output=True, text=True, timeout=170, check=False
    )
    lines = [line for line in run.stdout.splitlines() if line.startswith("SAID")]
    assert lines, run.stderr[-3000:]
    answer: dict[str, object] = json.loads(lines[0].removeprefix("SAID"))
    return {**answer, "who": (folder / "who").read_text().splitlines()}


def test_the_cluster_is_read_and_left_again(said: dict[str, object]) -> None:
    assert said["gpus"] == 4 and said["here"] == 0 and said["dtype"] == "bfloat16" and said["connected"] is False


def test_every_gpu_gets_a_worker_and_a_model_over_two_gpus_takes_two(said: dict[str, object]) -> None:
    assert said["pools"] == [4, 2, 1, 4], "9 shards, 9 of two GPUs each, 1 shard, 6 shards after it"


def test_each_sees_gpus_of_its_own(said: dict[str, object]) -> None:
    who = said["who"]
    assert isinstance(who, list)
    seen = {tuple(line.split()[1:]) for line in who if line.startswith("two ")}
    assert {devices for devices, _ in seen} == {"0,1"} and len(seen) <= 2
