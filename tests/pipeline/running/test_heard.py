"""What libraries warn of in a worker reaches the console of the driver, once, with the stage's name."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from stage_kit import Warns, put_prompts

from pipeline.base.progress import Progress
from pipeline.running.executor import Executor
from pipeline.running.heard import LONGEST, MOST, Heard
from pipeline.running.store import Run


@pytest.fixture
def heard() -> Iterator[Heard]:
    make, show = logging.getLogRecordFactory(), warnings.showwarning
    listener = Heard()
    listener.listen()
    yield listener
    logging.setLogRecordFactory(make)
    warnings.showwarning = show


def test_warnings_and_loggers_are_heard_whatever_their_handlers_once_each(heard: Heard) -> None:
    library = logging.getLogger("transformers.models.x")
    library.propagate = False  # as those of transformers and vLLM
    for _ in range(3):
        with pytest.warns(UserWarning):  # pytest's own, which listens in its stead
            warnings.warn("nobody hears this", UserWarning, stacklevel=1)
        warnings.showwarning("QuickGELU mismatch\nbetween two", UserWarning, "x.py", 1)
        library.warning("the tokenizer of %s is\tslow", "x")
    library.info("nothing")
    library.warning("Triton is not installed.")
    logging.getLogger("ray.data").warning("of no model")
    logging.getLogger().error("a bad %s", "thing", extra={})
    library.warning("two %s", "a", "b")  # its own fault
    assert heard.take() == [
        "UserWarning: QuickGELU mismatch between two", "the tokenizer of x is slow", "a bad thing", "two %s",
    ]  # fmt: skip
    assert heard.take() == []


def test_what_is_kept_is_bounded() -> None:
    listener = Heard()
    for number in range(1000):
        listener.add(f"{number} " + "x" * 1000)
    kept = listener.take()
    assert len(kept) == MOST and {len(text) for text in kept} == {LONGEST}


def test_a_workers_warnings_reach_the_console_once_with_the_stages_name(tmp_path: Path, ray_cluster: None) -> None:
    run, console = Run(tmp_path / "run"), io.StringIO()
    put_prompts(run)
    with Executor(run, progress=Progress(console)) as executor:
        executor.run(Warns())
        executor.run(replace(Warns(), name="second"))  # in the same worker
    heard_lines = [line for line in console.getvalue().splitlines() if ": warning: " in line]
    assert sorted(line.partition(",")[0] for line in heard_lines) == [
        "first: warning: UserWarning: QuickGELU mismatch",
        "first: warning: fell back to random weights",
        "first: warning: opened late by first",
        "second: warning: opened late by second",
    ]
    assert "sk-0123456789abcdefghij" not in console.getvalue()


def test_listening_imports_nothing_heavy() -> None:
    code = "import sys, pipeline.running.heard; print(sorted({'torch', 'ray', 'numpy'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
