"""What is slow to start, started once: Ray, and the one vLLM engine of the whole test session."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray would join whatever cluster runs on this machine.
os.environ["RAY_ADDRESS"] = "local"

import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from pipeline.base.model_names import BUILT_IN

# What several test folders build on lies in `kit`; child processes find it by the environment that they inherit.
_KIT = str(Path(__file__).parent / "kit")
sys.path.insert(0, _KIT)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_KIT, os.environ.get("PYTHONPATH")]))

# What starts the tests may ignore these (nohup, a job in the background), and children would inherit that.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

# A machine shared with an engine is slow now and then; that is no failure of the code under test.
settings.register_profile("project", deadline=None)
settings.load_profile("project")


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[None]:
    """A running Ray that executors join and do not stop."""
    import ray

    from pipeline.running.executor import start_ray

    started = start_ray()
    yield
    if started:
        ray.shutdown()


@pytest.fixture(scope="session")
def vllm_engine() -> Any:
    """The built-in VLM in this process. ``VLLM_TEST_MODEL`` names another folder to test with."""
    from pipeline.engines.vllm import OpenVllm

    folder = os.environ.get("VLLM_TEST_MODEL") or str(BUILT_IN["scenes-vlm"])
    return OpenVllm(folder)()
