"""Thousands of odd inputs at every door: each is accepted, a named error, or a failed row.

``make fuzz`` gives ``FUZZ_INPUTS`` and another ``FUZZ_SEED`` every time; input number i of a seed is always the same.
"""

from __future__ import annotations

import collections
import contextlib
import faulthandler
import functools
import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import schemas
import sources
import texts

from pipeline.base.errors import LONGEST, UserError

SEED = int(os.environ.get("FUZZ_SEED", "0"))
INPUTS = int(os.environ.get("FUZZ_INPUTS", "500"))
#: For one input; most take some milliseconds.
SECONDS = 30

Check = Callable[[random.Random, Path], str]
DOORS: dict[str, Check] = {
    **{f"source {kind}": functools.partial(sources.check, kind) for kind in sources.KINDS},
    **{f"schema {kind}": functools.partial(schemas.check, kind) for kind in schemas.KINDS},
    "recipe": texts.recipe,
    "training configuration": texts.training,
    "overrides": texts.overrides,
    "detections": texts.detections,
    "vocabulary": texts.vocabulary,
    "judge's answer": texts.verdicts,
    "server's reply": texts.replies,
    "image": texts.pictures,
}


class TooSlow(BaseException):
    """Not an ``Exception``, so that nobody takes it for one of an input."""


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    def stop(*_: Any) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    # Where even that does not help, in a library's own code, it is said where.
    faulthandler.dump_traceback_later(4 * seconds, exit=True, file=sys.__stderr__)
    try:
        yield
    finally:
        signal.alarm(0)
        faulthandler.cancel_dump_traceback_later()
        signal.signal(signal.SIGALRM, before)


def outcome(door: str, number: int, folder: Path) -> str:
    """
    Raises:
        AssertionError: the input got through, was lost, or is refused at length.
    """
    folder.mkdir()
    rng = random.Random(f"{SEED}|{door}|{number}")
    try:
        with limited(SECONDS):
            return DOORS[door](rng, folder)
    except UserError as error:
        assert len(str(error)) <= LONGEST, f"{len(str(error))} characters: {str(error)[:500]}"
        assert str(error).strip(), "says nothing"
        return "named error"
    except TooSlow:
        raise AssertionError(f"not done after {SECONDS} s") from None


@pytest.fixture(autouse=True)
def apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    schemas.quiet(tmp_path / "cache")
    monkeypatch.chdir(tmp_path)


def test_every_odd_input_is_accepted_a_named_error_or_a_failed_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    each = max(1, INPUTS // len(DOORS))
    counted: dict[str, collections.Counter[str]] = {}
    wrong: list[str] = []
    begun = time.monotonic()
    for door in DOORS:
        counted[door] = collections.Counter()
        for number in range(each):
            try:
                counted[door][outcome(door, number, tmp_path / f"{door} {number}".replace(" ", "-"))] += 1
            except Exception as error:
                counted[door]["WRONG"] += 1
                told = "".join(traceback.format_exception(error)[-4:])[:2500]
                wrong.append(f"{door}, FUZZ_SEED={SEED}, number {number}: {type(error).__name__}\n{told}")
    with capsys.disabled():
        print(f"\nFUZZ_SEED={SEED}: {each * len(DOORS)} inputs in {time.monotonic() - begun:.0f} s, {len(wrong)} wrong")
        for door, outcomes in counted.items():
            print(f"  {door:24}" + ", ".join(f"{count} {name}" for name, count in sorted(outcomes.items())))
    assert not wrong, f"{len(wrong)} inputs:\n" + "\n\n".join(wrong[:12])
    if each >= 15:  # inputs that are all refused, or all accepted, show nothing
        dull = {door for door, outcomes in counted.items() if len(outcomes) < 2}
        assert not dull, f"only one outcome at {dull}"
