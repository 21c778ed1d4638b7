"""Runs as processes of their own, to be killed; what they publish is compared byte by byte."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import yaml

from pipeline.running.store import Run

TEXTS = ["The image shows a sun.", "The image shows a sun and an anchor.", "Yes.", "No.", "a cup, a horse and a king"]
PROMPTS = 2_000  # at least; equal prompts are merged
#: How many random moments each kind of kill is tried at. `make chaos` asks for 20.
MOMENTS = int(os.environ.get("CHAOS_MOMENTS", "1"))
RECIPE = {
    "name": "run",
    "shard_size": 50,
    "max_failure_rate": 0,
    "source": {"scenes": PROMPTS * 11 // 40, "questions_per_scene": 3},
    "sample": {
        "model": "canned",
        "n": 4,
        "engine": {"kind": "scripted", "texts": TEXTS, "seconds_per_request": 0.001, "workers": 2},
    },
    "score": {"scorers": ["objects", "correctness"]},
    "pair": {"weights": {"objects.hallucinated": -1, "correctness": 1}, "margin": 0.5, "max_length_ratio": 9},
}


@dataclass
class Job:
    """``python -m pipeline.run`` in ``folder``. ``ray``: the address of a cluster; without one it starts its own."""

    folder: Path
    ray: str | None = None
    changes: tuple[str, ...] = ()
    process: subprocess.Popen[bytes] | None = None

    @property
    def run(self) -> Path:
        return self.folder / "run"

    @property
    def sampled(self) -> list[str]:
        """The ids of all sampled rows, as they lie in the shards."""
        return [id for table in Run(self.run).tables("sample") for id in table["id"].to_pylist()]

    @property
    def dataset(self) -> dict[str, str]:
        """The digests of what is published; the card only where no change of the recipe stands in it."""
        files = published(self.run / "dataset")
        return {name: digest for name, digest in files.items() if name != "README.md" or not self.changes}

    def start(self) -> Job:
        self.folder.mkdir(parents=True, exist_ok=True)
        recipe = self.folder / "recipe.yaml"
        recipe.write_text(yaml.safe_dump(RECIPE))
        # "local" starts a cluster, whatever else runs on this machine.
        env = {**os.environ, "RAY_ADDRESS": self.ray or "local"}
        command = [sys.executable, "-m", "pipeline.run", str(recipe), f"output_dir={self.folder}", *self.changes]
        log = (self.folder / "log.txt").open("ab")
        # A session of its own: what is killed is exactly what this test started.
        self.process = subprocess.Popen(command, start_new_session=True, env=env, stdout=log, stderr=log)
        return self

    def wait(self, seconds: float = 180) -> int:
        assert self.process is not None
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"the run hangs; it said:\n{self.log_tail()}") from None

    def kill(self) -> None:
        assert self.process is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def descendants(self, name: str) -> list[psutil.Process]:
        """Processes below the driver whose command line holds ``name``. One that is about to become another program has
        the command line of its parent still, and is not among them."""
        assert self.process is not None
        below = psutil.Process(self.process.pid).children(recursive=True)
        named = {p.pid: p for p in below if name in " ".join(_words(p))}
        return [p for p in named.values() if _parent(p) not in named]

    def finish(self) -> dict[str, str]:
        """Run it (again) to its end; the digests of what it published."""
        code = self.start().wait()
        assert code == 0, self.log_tail()
        return self.dataset

    def log_tail(self) -> str:
        return (self.folder / "log.txt").read_text(errors="replace")[-3000:]


def _parent(process: psutil.Process) -> int | None:
    try:
        parent: int = process.ppid()
        return parent
    except psutil.NoSuchProcess:
        return None


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def tree(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def published(folder: Path) -> dict[str, str]:
    """The digests of a published folder; of dataset_dict.json, which names the card too, what it says of the rows."""
    described = folder / "dataset_dict.json"
    return {**tree(folder), described.name: json.loads(described.read_text())["rows"]}


def until(what: str, happens: object, seconds: float = 120) -> None:
    """Wait until the callable ``happens`` returns something true."""
    deadline = time.monotonic() + seconds
    while not happens():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.02)
