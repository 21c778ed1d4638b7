"""What is measured here is CPU time, which other processes do not change."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from pipeline.base import openmp

_SPLITS = """
import glob, json, sys, threading, time
from pathlib import Path
import torch
from pipeline.base.openmp import SecondTeam

def burnt():
    main = str(threading.get_native_id())
    paths = [path for path in glob.glob("/proc/self/task/*/schedstat") if path.split("/")[4] != main]
    return sum(int(Path(path).read_text().split()[0]) for path in paths) / 1e9

def results():
    torch.manual_seed(0)
    rows = torch.randn(512, 512)
    return [float(rows.sum()), float((rows @ rows).sum()), float(torch.softmax(rows, -1).std())]

assert torch.get_num_threads() == 2
numbers = torch.zeros(1 << 17)
team = SecondTeam()
spent, found = [], []
for kept in (False, True, False):
    team.keep() if kept else team.leave()
    assert team.kept is kept
    numbers.add_(1.0)
    time.sleep(0.2)
    before = burnt()
    for _ in range(20):
        numbers.add_(1.0)
        time.sleep(0.02)
    spent.append(burnt() - before)
    found.append(results())
print(json.dumps({"spent": spent, "results": found}))
"""


def _child(code: str, **env: str) -> Any:
    clean = {key: value for key, value in os.environ.items() if key not in openmp.SAID}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=clean | {"OMP_NUM_THREADS": "2"} | env,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def split() -> Any:
    return _child(_SPLITS)


def test_with_a_second_team_threads_hardly_turn_in_a_loop_and_without_it_they_do_again(split: Any) -> None:
    before, kept, after = split["spent"]
    assert kept < 0.3 * before
    assert kept < 0.3 * after


def test_a_second_team_changes_no_number(split: Any) -> None:
    before, kept, after = split["results"]
    assert before == kept == after


_WATCHED = """
import json, threading
from pipeline.base import openmp
with openmp.sharing_cpus():
    names = [thread.name for thread in threading.enumerate()]
after = [thread.name for thread in threading.enumerate()]
print(json.dumps({"inside": names, "after": after}))
"""


@pytest.mark.parametrize(
    ("env", "watched"),
    [({}, True), ({"OMP_WAIT_POLICY": "PASSIVE"}, False), ({"GOMP_SPINCOUNT": "300000"}, False)],
)
def test_who_says_how_threads_wait_is_obeyed(env: dict[str, str], watched: bool) -> None:
    seen = _child(_WATCHED, **env)
    assert ("cpus" in seen["inside"]) is watched
    assert "cpus" not in seen["after"]


class _Team:
    kept: list[bool]

    def __init__(self) -> None:
        _Team.kept = []

    def keep(self) -> None:
        self.kept.append(True)

    def leave(self) -> None:
        self.kept.append(False)


def test_the_team_is_kept_while_threads_wait_and_for_some_looks_after(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten looks of a second: in the second and third, a thread has waited for half of it."""
    waits = iter([0.0, 0.0, 0.5, 1.0, *[1.0] * 7])
    looks = iter([False] * 10 + [True])
    clock = iter(range(11))
    monkeypatch.setattr(openmp, "waited", lambda: next(waits))
    monkeypatch.setattr(openmp.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(openmp, "SecondTeam", _Team)
    monkeypatch.setattr(openmp, "_can_split", lambda: True)
    over = threading.Event()
    monkeypatch.setattr(over, "wait", lambda _: next(looks))
    openmp._watch(over)
    assert _Team.kept == [True, True, False, False, False, False, False]


def test_threads_that_wait_for_a_cpu_are_seen() -> None:
    """Two threads of one process on one CPU; while they hash, the interpreter's lock is free."""
    code = """
import hashlib, json, os, threading
from pipeline.base.openmp import waited
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
data = b"x" * (1 << 26)
before = waited()
threads = [threading.Thread(target=lambda: [hashlib.sha256(data) for _ in range(4)]) for _ in range(2)]
[thread.start() for thread in threads]
grown = 0.0
while any(thread.is_alive() for thread in threads):
    threads[0].join(0.01)
    threads[1].join(0.01)
    grown = max(grown, waited() - before)
print(json.dumps(grown))
"""
    assert _child(code) > 0.05


def test_without_the_kernels_numbers_nothing_is_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(openmp, "_WAITED", str(tmp_path / "*"))
    for name in openmp.SAID:
        monkeypatch.delenv(name, raising=False)
    with openmp.sharing_cpus():
        assert "cpus" not in [thread.name for thread in threading.enumerate()]
