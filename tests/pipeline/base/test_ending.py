"""Whoever ends a command ends what it has started, whichever way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.base.ending import Ended, ended_by_signals

#: A command that starts a child of ours, which starts nothing more; both say who they are.
PARENT = """
import os, sys
from pipeline.base.command import command
from pipeline.base.ending import run_child
def main() -> None:
    try:
        code = run_child([sys.executable, "-c", CHILD, sys.argv[0]])
        print("child ended with", code)
    finally:
        print("left in order", flush=True)
app = command(main)
"""
CHILD = """
import os, time
from pipeline.base.command import command
def main() -> None:
    print(os.getpid(), flush=True)
    try:
        time.sleep(60)
    finally:
        print("child left in order", flush=True)
command(main)([])
"""


def started(**options: object) -> tuple[subprocess.Popen[str], int]:
    script = f"CHILD = {CHILD!r}\n{PARENT}\napp([])"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=-1, stderr=-1, text=True, **options)  # type: ignore[call-overload]
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize(("sent", "code"), [("SIGTERM", 143), ("SIGHUP", 129), ("SIGINT", 130)])
def test_a_signal_ends_the_command_and_its_child_in_order(sent: str, code: int) -> None:
    process, child = started()
    process.send_signal(getattr(signal, sent))
    out, err = process.communicate(timeout=30)
    assert process.returncode == code and gone(child)
    assert out.splitlines() == ["child left in order", "left in order"]
    lines = err.splitlines()
    assert lines[-1] == f"{'interrupted' if sent == 'SIGINT' else f'ended by {sent}'}; the same command continues"
    assert "Traceback" not in err


def test_a_killed_command_takes_its_child_along() -> None:
    process, child = started()
    process.kill()
    process.communicate(timeout=30)
    assert gone(child)


def test_a_child_whose_parent_is_gone_before_it_looks_does_not_start() -> None:
    env = {**os.environ, "VLM_PREFERENCE_PARENT": "1"}
    child = subprocess.run([sys.executable, "-c", CHILD], env=env, capture_output=True, text=True)
    assert child.returncode == 143 and child.stdout == ""


def test_what_nohup_ignores_stays_ignored() -> None:
    process, child = started(preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN))
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    process.terminate()
    process.communicate(timeout=30)
    assert process.returncode == 143 and gone(child)


def test_a_library_that_makes_a_plain_interruption_of_a_signal_does_not_hide_it() -> None:
    with pytest.raises(Ended) as told, ended_by_signals():
        try:
            os.kill(os.getpid(), signal.SIGHUP)
            time.sleep(60)
        except KeyboardInterrupt:
            raise KeyboardInterrupt from None
    assert (str(told.value), told.value.exit_code) == ("SIGHUP", 129)
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_DFL
    with pytest.raises(KeyboardInterrupt) as plain, ended_by_signals():
        raise KeyboardInterrupt
    assert not isinstance(plain.value, Ended)
