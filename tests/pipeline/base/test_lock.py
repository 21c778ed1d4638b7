"""A folder has one writer at a time, and a dead one holds nothing."""

from __future__ import annotations

import errno
import fcntl
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.base.lock import NAME, InUse, locked

HOLDS = """
import sys, time
from pathlib import Path
from pipeline.base.lock import locked
if sys.argv[2] == "no flock":
    import errno, fcntl
    def flock(*_): raise OSError(errno.ENOTSUP, "no flock")
    fcntl.flock = flock
with locked(Path(sys.argv[1]), "python -m pipeline.run mine"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture(params=["flock", "no flock"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """With the kernel's lock, and on a file system that has none."""
    if request.param == "no flock":

        def flock(*_: object) -> None:
            raise OSError(errno.ENOTSUP, "no flock")

        monkeypatch.setattr(fcntl, "flock", flock)
    return request.param


def holder(folder: Path, kind: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLDS, str(folder), kind], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


def test_the_second_one_is_told_who_the_first_is(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "new" / "run"
    with holder(folder, kind) as first:
        with pytest.raises(InUse) as error, locked(folder, "mine"):
            pass
        message = str(error.value)
        assert str(folder) in message and "python -m pipeline.run mine" in message
        assert str(first.pid) in message and socket.gethostname() in message
        first.terminate()


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_holder_holds_nothing(tmp_path: Path, kind: str, sent: signal.Signals) -> None:
    with holder(tmp_path, kind) as first:
        first.send_signal(sent)
    with locked(tmp_path, "mine"):
        (left,) = tmp_path.iterdir()
        assert json.loads(left.read_text())["pid"] == os.getpid()
    assert not list(tmp_path.iterdir())


def test_it_is_free_after_the_block_and_not_within(tmp_path: Path, kind: str) -> None:
    for _ in range(2):
        with locked(tmp_path, "mine"), pytest.raises(InUse), locked(tmp_path, "again"):
            pass
    with pytest.raises(ZeroDivisionError), locked(tmp_path, "mine"):
        raise ZeroDivisionError
    with locked(tmp_path, "mine"), locked(tmp_path / "train", "a folder in it has a lock of its own"):
        pass
    assert not list(tmp_path.rglob(".lock*"))


def test_a_process_with_the_number_of_a_dead_one_is_not_taken_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.ENOSYS, "no flock")

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path, "mine"):
        (path,) = tmp_path.glob(f"{NAME}.*")
        mine = json.loads(path.read_text())
    for change, free in (
        ({}, False),
        ({"started": mine["started"] - 1}, True),
        ({"boot": "another"}, True),
        ({"host": "elsewhere", "started": 0}, False),  # nothing is known of other machines
    ):
        path = tmp_path / f"{NAME}.left"
        path.write_text(json.dumps({**mine, **change}))
        if free:
            with locked(tmp_path, "mine"):
                pass
            continue
        with pytest.raises(InUse, match=f"remove {path}"), locked(tmp_path, "mine"):
            pass


def test_a_child_does_not_go_on_holding_what_its_parent_held(tmp_path: Path) -> None:
    with locked(tmp_path, "mine"):
        child = os.fork()
        if not child:
            time.sleep(30)
            os._exit(0)
    try:
        with locked(tmp_path, "mine"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def _count(folder: Path, kind: str, times: int, start: Any) -> None:
    if kind == "no flock":

        def flock(*_: object) -> None:
            raise OSError(errno.ENOTSUP, "no flock")

        fcntl.flock = flock  # type: ignore[assignment]
    counter = folder.parent / "counter"
    start.wait()
    while times:
        try:
            with locked(folder, "mine"):
                seen = int(counter.read_text())
                time.sleep(0.0005)
                counter.write_text(str(seen + 1))
                times -= 1
        except InUse:
            continue


#: Left by a process that was killed.
DEAD = {"what": "", "host": socket.gethostname(), "pid": 1, "started": -1, "boot": "before", "since": ""}


def test_of_many_that_start_at_once_one_at_a_time_gets_it(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    for name in (NAME, f"{NAME}.left"):
        (folder / name).write_text(json.dumps(DEAD))
    (tmp_path / "counter").write_text("0")
    context = multiprocessing.get_context("fork")
    start = context.Event()
    started = [context.Process(target=_count, args=(folder, kind, 40, start)) for _ in range(4)]
    for process in started:
        process.start()
    start.set()
    for process in started:
        process.join(60)
    assert (tmp_path / "counter").read_text() == "160"
