"""A run that is killed and started again publishes the same bytes as one that was left in peace."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

TEXTS = ["The image shows a sun.", "The image shows a sun and an anchor.", "Yes.", "No.", "a cup, a horse and a king"]
RECIPE = {
    "name": "run",
    "shard_size": 4,
    "source": {"scenes": 40, "questions_per_scene": 1},
    "sample": {"model": "canned", "n": 4, "engine": {"kind": "scripted", "texts": TEXTS}},
    "score": {"scorers": ["objects", "correctness"]},
    "pair": {"weights": {"objects.hallucinated": -1, "correctness": 1}, "margin": 0.5, "max_length_ratio": 9},
}


def write(folder: Path) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    return path


def start(recipe: Path, out: Path, seconds_per_request: float) -> subprocess.Popen[bytes]:
    options = [f"output_dir={out}", f"sample.engine.seconds_per_request={seconds_per_request}"]
    # A session of its own: what is killed is exactly what this test started.
    return subprocess.Popen([sys.executable, "-m", "pipeline.run", str(recipe), *options], start_new_session=True)


def tree(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The published files of a run that nobody disturbed."""
    folder = tmp_path_factory.mktemp("calm")
    assert start(write(folder), folder, 0).wait() == 0
    return tree(folder / "run" / "dataset")


@pytest.mark.parametrize("whole_session", [True, False], ids=["everything", "driver only"])
def test_killed_while_sampling(tmp_path: Path, whole_session: bool, calm: dict[str, str]) -> None:
    recipe = write(tmp_path)
    killed = start(recipe, tmp_path / "killed", 0.2)
    sample = tmp_path / "killed" / "run" / "sample"
    deadline = time.monotonic() + 120
    while len(list(sample.glob("data-*.arrow"))) < 3:
        assert killed.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    if whole_session:
        os.killpg(killed.pid, signal.SIGKILL)
    else:
        killed.kill()
    killed.wait()
    time.sleep(3)  # Ray's own processes notice that their driver is gone
    done = {path.name: path.stat().st_mtime_ns for path in sample.glob("data-*.arrow")}
    assert 3 <= len(done) < 20 and not (tmp_path / "killed" / "run" / "dataset").exists()

    assert start(recipe, tmp_path / "killed", 0).wait() == 0
    kept = {name: (sample / name).stat().st_mtime_ns for name in done}
    assert kept == done
    assert tree(tmp_path / "killed" / "run" / "dataset") == calm
