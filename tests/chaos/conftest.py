from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from chaos_kit import PROMPTS, Job


@dataclass(frozen=True)
class Calm:
    """What a run that nobody disturbed publishes, and how many shards its stages have."""

    dataset: dict[str, str]
    sampled: list[str]
    shards: int


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of a cluster that outlives the drivers which are killed."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "include_dashboard": False})
    yield cluster.address
    cluster.shutdown()


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Calm:
    job = Job(tmp_path_factory.mktemp("calm"))
    dataset = job.finish()
    assert len(set(job.sampled)) == len(job.sampled) >= PROMPTS
    return Calm(dataset, job.sampled, len(list(job.run.glob("*/data-*.arrow"))))
