"""Whatever is killed, and whenever: a run that is started again publishes the bytes of one that was left in peace."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path

import psutil
import pytest
from chaos_kit import MOMENTS, Job, until
from conftest import Calm

STAGES = ("source", "sample", "score", "pair")


def progress(job: Job) -> int:
    """Shards that are done, of all stages."""
    return sum(len(list((job.run / stage).glob("data-*.arrow"))) for stage in STAGES)


def check(job: Job, published: dict[str, str], calm: Calm) -> None:
    assert len(published) > 6 and published == {name: calm.dataset[name] for name in published}
    assert job.sampled == calm.sampled  # nothing lost, nothing twice
    summary = json.loads((job.run / "summary.json").read_text())["stages"]
    counts = {name: (stage["rows"], stage["failed"]) for name, stage in summary.items()}
    assert all(counts[name] == (len(calm.sampled), 0) for name in ("source", "sample", "score", "pair"))


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_the_driver_is_killed(moment: int, tmp_path: Path, calm: Calm, cluster: str) -> None:
    job = Job(tmp_path, ray=cluster).start()
    # By what is done, not by the clock: whatever the machine does, the run is then still at work.
    wanted = random.Random(f"driver {moment}").randint(0, calm.shards)
    until("progress", lambda: progress(job) >= wanted)
    assert job.running()
    job.kill()
    check(job, job.finish(), calm)


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_an_actor_is_killed_and_the_run_goes_on(moment: int, tmp_path: Path, calm: Calm) -> None:
    job = Job(tmp_path, changes=("sample.engine.seconds_per_request=0.004",)).start()
    until("workers", lambda: not job.running() or job.descendants("ray::_Worker"))
    time.sleep(random.Random(f"actor {moment}").uniform(0, 3))  # of the four or more that sampling takes
    assert _kill(job.descendants("ray::_Worker")[:1]) == 1
    assert job.wait() == 0, job.log_tail()  # nobody has to start it again
    check(job, job.dataset, calm)


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_a_raylet_is_killed(moment: int, tmp_path: Path, calm: Calm) -> None:
    job = Job(tmp_path).start()
    until("a raylet", lambda: not job.running() or job.descendants("raylet/raylet"))
    wanted = random.Random(f"raylet {moment}").randint(0, calm.shards)
    until("progress", lambda: progress(job) >= wanted)
    assert _kill(job.descendants("raylet/raylet")) == 1
    job.wait()  # on a single machine there is no other raylet: the run ends, one way or another
    check(job, job.finish(), calm)


def test_a_node_of_two_is_killed_and_the_run_goes_on(tmp_path: Path, calm: Calm) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        lost = cluster.add_node(num_cpus=1)
        job = Job(tmp_path, ray=cluster.address, changes=("sample.engine.seconds_per_request=0.004",)).start()
        until("shards", lambda: len(list((job.run / "sample").glob("data-*.arrow"))) >= 6)
        cluster.remove_node(lost, allow_graceful=False)
        assert job.wait() == 0, job.log_tail()
    finally:
        cluster.shutdown()
    check(job, job.dataset, calm)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_does_not_show(workers: int, tmp_path: Path, calm: Calm, cluster: str) -> None:
    job = Job(tmp_path, ray=cluster, changes=(f"sample.engine.workers={workers}",))
    check(job, job.finish(), calm)


def _kill(processes: list[psutil.Process]) -> int:
    killed = 0
    for process in processes:
        try:
            process.kill()
            killed += 1
        except psutil.NoSuchProcess:
            continue
    return killed
