"""Whatever is killed, and whenever: a run that is started again publishes the bytes of one that was left in peace."""

from __future__ import annotations

import random
import time
from pathlib import Path

import psutil
import pytest
from chaos_kit import MOMENTS, PROMPTS, Job, until
from conftest import Calm

from pipeline.store import Run


def moments(kind: str, seconds: float) -> float:
    """A moment of a run that takes so long, but not before it has begun to work."""
    return random.Random(kind).uniform(0.15, 0.95) * seconds


def check(run: Path, published: dict[str, str], calm: Calm) -> None:
    assert len(published) > 6 and published == {name: calm.dataset[name] for name in published}
    ids = [one for table in Run(run).tables("sample") for one in table["id"].to_pylist()]
    assert len(ids) == len(set(ids)) == PROMPTS  # nothing lost, nothing twice


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_the_driver_is_killed(moment: int, tmp_path: Path, calm: Calm, cluster: str) -> None:
    job = Job(tmp_path, ray=cluster).start()
    time.sleep(moments(f"driver {moment}", calm.seconds))
    if job.process is not None and job.process.poll() is None:
        job.kill()
    check(job.run, job.finish(), calm)


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_an_actor_is_killed_and_the_run_goes_on(moment: int, tmp_path: Path, calm: Calm) -> None:
    job = Job(tmp_path, changes=("sample.engine.seconds_per_request=0.004",)).start()
    until("workers", lambda: job.descendants("ray::_Worker") or job.process.poll() is not None)  # type: ignore[union-attr]
    time.sleep(random.Random(f"actor {moment}").uniform(0, 4))
    killed = _kill(job.descendants("ray::_Worker")[:1])
    assert job.wait() == 0, job.said()  # nobody has to start it again
    assert killed <= 1
    check(job.run, job.dataset, calm)


@pytest.mark.parametrize("moment", range(MOMENTS))
def test_a_raylet_is_killed(moment: int, tmp_path: Path, calm: Calm) -> None:
    job = Job(tmp_path).start()
    until("a raylet", lambda: job.descendants("raylet/raylet") or job.process.poll() is not None)  # type: ignore[union-attr]
    time.sleep(random.Random(f"raylet {moment}").uniform(0, calm.seconds / 2))
    _kill(job.descendants("raylet/raylet"))
    job.wait()  # on a single machine there is no other raylet: the run ends, one way or another
    check(job.run, job.finish(), calm)


def test_a_node_of_two_is_killed_and_the_run_goes_on(tmp_path: Path, calm: Calm) -> None:
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        lost = cluster.add_node(num_cpus=1)
        job = Job(tmp_path, ray=cluster.address, changes=("sample.engine.seconds_per_request=0.004",)).start()
        until("shards", lambda: len(list((job.run / "sample").glob("data-*.arrow"))) >= 6)
        cluster.remove_node(lost, allow_graceful=False)
        assert job.wait() == 0, job.said()
    finally:
        cluster.shutdown()
    check(job.run, job.dataset, calm)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_does_not_show(workers: int, tmp_path: Path, calm: Calm, cluster: str) -> None:
    job = Job(tmp_path, ray=cluster, changes=(f"sample.engine.workers={workers}",))
    check(job.run, job.finish(), calm)


def _kill(processes: list[psutil.Process]) -> int:
    killed = 0
    for process in processes:
        try:
            process.kill()
            killed += 1
        except psutil.NoSuchProcess:
            continue
    return killed
