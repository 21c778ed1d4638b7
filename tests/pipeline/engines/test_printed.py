"""What a process and its children print is kept and passed on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.engines.printed import Printed

SCRIPT = """
import os, subprocess, sys, time
sys.path.insert(0, {root!r})
from pipeline.engines.printed import printed
with printed() as said:
    print("here")
    os.write(2, b"low\\n")
    subprocess.run([sys.executable, "-c", "import sys; print('child'); print('grief', file=sys.stderr)"])
    late = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(6); print('late')"])
print("outside")
started = time.monotonic()
text = said.text()
assert {{"here", "low", "child", "grief"}} <= set(text.split()), text
assert "outside" not in text
assert time.monotonic() - started < 5.5, "a child that lives on is not waited for"
late.wait()
time.sleep(0.5)
assert "late" in said.text()
"""


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_is_kept_and_passed_on(unbuffered: str) -> None:
    """Without a buffer ``print`` writes a line and its end apart, and the other stream may come between them."""
    script = SCRIPT.format(root=str(Path(__file__).parents[3]))
    environment = os.environ | {"PYTHONUNBUFFERED": unbuffered}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {"here", "child", "outside", "late"}
    assert set(done.stderr.split()) == {"low", "grief"}


def test_lines_of_two_streams_stay_whole() -> None:
    """However their parts come; a line that never ends is there as well."""
    kept = Printed()
    for source, data in ((3, b"chi"), (4, b"grief"), (3, b"ld\nnext\nla"), (4, b"\n"), (3, b"st")):
        kept._keep(source, data)
    assert kept.text() == "child\nnext\ngrief\nlast"


def test_a_closed_stream_is_left_alone() -> None:
    code = f"""
import os, sys
sys.path.insert(0, {str(Path(__file__).parents[3])!r})
os.close(2)
from pipeline.engines.printed import printed
with printed() as said:
    print("here")
assert said.text() == "here\\n", said.text()
"""
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, timeout=60).returncode == 0
