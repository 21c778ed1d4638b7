"""The same of a training: its reference log-probs, checkpoints, best weights, logs, adapter and exported model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from crash_kit import child
from test_crash_points import Runs, crash, say


def tiny(folder: Path) -> None:
    from tiny_models import FAMILIES, save

    save(next(family for family in FAMILIES if family.name == "LLaVA-1.5"), folder)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    runs = Runs(tmp_path_factory.mktemp("crash"))
    assert child(lambda: tiny(runs.folder / "model"), runs.folder / "log.txt") == 0, runs.log_tail()
    runs.put(None)
    runs.finish({})
    os.rename(runs.place / "run" / "dataset", runs.folder / "held-out")
    runs.warm({"train": options(runs)})
    return runs


@pytest.fixture
def trained(runs: Runs) -> dict[str, Any]:
    return options(runs)


def options(runs: Runs) -> dict[str, Any]:
    return {
        "model": str(runs.folder / "model"),
        "tuning": "lora",
        "objective": "dpo",
        "epochs": 1,
        "batch_size": 2,
        "micro_batch_size": 2,
        "save_steps": 1,
        "logging_steps": 1,
        "eval_dataset": str(runs.folder / "held-out"),
        "eval_steps": 1,
        "patience": 9,
        "learning_rate": 0.001,
    }


def test_a_training(runs: Runs, trained: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """Of a run whose dataset is there; the other recipe trains with another learning rate."""
    runs.put(None)
    runs.finish({})
    published = runs.keep("published")
    other = {"train": {**trained, "learning_rate": 0.002}}
    say("a training", *crash(runs, published, ("trained", {"train": trained}), ("another rate", other)), capsys)


def test_another_training_over_a_finished_one(
    runs: Runs, trained: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    runs.put(None)
    runs.finish({"train": trained})
    finished = runs.keep("finished")
    other = {"train": {**trained, "learning_rate": 0.002}}
    points = crash(runs, finished, ("another rate", other), ("trained", {"train": trained}))
    say("another training over a finished one", *points, capsys)


def test_no_training_over_a_finished_one(
    runs: Runs, trained: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """What the first recipe has trained and measured is nothing of one that trains nothing."""
    runs.put(None)
    runs.finish({"train": trained})
    finished = runs.keep("finished")
    points = crash(runs, finished, ("no training", {"train": None}), ("trained", {"train": trained}))
    say("no training over a finished one", *points, capsys)
