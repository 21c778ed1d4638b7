"""Where metrics go: lines that a resumed run takes back, and Weights & Biases only if asked for."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pipeline.base.errors import ConfigError
from pipeline.base.progress import ProgressBar
from training.config import TrainConfig
from training.loop.log import MetricsLog, progress_note
from training.loop.resume import TRAINED
from training.loop.trainer import train

Configure = Callable[..., TrainConfig]


class FakeRun:
    def __init__(self, run_id: str) -> None:
        self.id = run_id
        self.lines: list[tuple[int, dict[str, float]]] = []
        self.finished = False

    def log(self, metrics: dict[str, float], step: int) -> None:
        self.lines.append((step, metrics))

    def finish(self) -> None:
        self.finished = True


class FakeWandb(ModuleType):
    def __init__(self) -> None:
        super().__init__("wandb")
        self.runs: list[tuple[dict[str, Any], FakeRun]] = []

    def init(self, **options: Any) -> FakeRun:
        run = FakeRun(options["id"] or f"run-{len(self.runs)}")
        self.runs.append((options, run))
        return run


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWandb]:
    fake = FakeWandb()
    monkeypatch.setitem(sys.modules, "wandb", fake)
    yield fake


def lines(config: TrainConfig) -> list[dict[str, float]]:
    return [json.loads(line) for line in (config.output_dir / "metrics.jsonl").read_text().splitlines()]


def test_a_resumed_log_takes_back_later_lines_and_half_written_ones(configure: Configure) -> None:
    config = configure()
    config.output_dir.mkdir()
    (config.output_dir / "metrics.jsonl").write_text('{"step": 1}\n{"step": 2}\n{"step": 3}\n{"ste')
    with MetricsLog(config, 2) as log:
        log.write(3, {"loss": 0.5})
    assert lines(config) == [{"step": 1}, {"step": 2}, {"step": 3, "loss": 0.5}]


def test_other_workers_write_nothing(configure: Configure) -> None:
    config = configure(wandb_project="p")  # and need no wandb
    with MetricsLog(config, 0, active=False) as log:
        log.write(1, {"loss": 0.5})
    assert not config.output_dir.exists()


def test_weights_and_biases_gets_every_line_and_the_configuration(configure: Configure, wandb: FakeWandb) -> None:
    config = configure(max_steps=2, wandb_project="alignment")
    train(config)
    ((options, run),) = wandb.runs
    assert options["project"] == "alignment"
    assert options["name"] == config.output_dir.name
    assert options["config"] == config.model_dump(mode="json")
    assert [{"step": step, **metrics} for step, metrics in run.lines] == lines(config)
    assert run.finished


def test_a_resumed_run_goes_on_in_the_same_one_and_a_new_one_does_not(configure: Configure, wandb: FakeWandb) -> None:
    for changes in ({}, {}, {"resume": False}):
        train(configure(max_steps=1, wandb_project="alignment", **changes))
        (configure().output_dir / TRAINED).unlink()  # as if killed while the model was written
    assert [options["id"] for options, _ in wandb.runs] == [None, "run-0", None]


def test_it_is_not_imported_unless_asked_for(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    train(configure(max_steps=1))


def test_asked_for_and_not_installed_is_an_error_before_anything_is_done(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "wandb", None)
    config = configure(wandb_project="alignment", model="/nowhere")
    with pytest.raises(ConfigError, match=r"wandb_project is set but wandb is not installed; pip install wandb"):
        train(config)
    assert not config.output_dir.exists()


def test_a_bar_without_a_terminal_says_loss_rate_and_time_left(capsys: pytest.CaptureFixture, tmp_path: Path) -> None:
    with ProgressBar("train", 10, done=4) as bar:
        bar.advance()
        bar.note(progress_note({"loss": 0.5, "eval/loss": 0.25, "grad_norm": 3.0}))
    console = capsys.readouterr().err
    assert console.startswith("train step 5/10  loss 0.5000  eval/loss 0.2500  ")
    assert "step/s" in console and "s left" in console and "grad_norm" not in console


def test_long_work_without_a_terminal_says_now_and_then_how_far_it_is(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("pipeline.base.progress.time.monotonic", lambda: clock[0])
    with ProgressBar("reference", 100, unit="pair") as bar:
        for clock[0] in (10.0, 31.0, 40.0, 61.0, 62.0):
            bar.advance(10)
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["reference pair 20/100  0.65 pair/s  124 s left", "reference pair 40/100  0.66 pair/s  92 s left"]


def test_a_line_of_the_loss_counts_as_one_that_says_how_far_it_is(
    capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("pipeline.base.progress.time.monotonic", lambda: clock[0])
    with ProgressBar("train", 3) as bar:
        clock[0] = 29.0
        bar.note("loss 0.5")
        clock[0] = 31.0
        bar.advance()
    assert len(capsys.readouterr().err.splitlines()) == 1
