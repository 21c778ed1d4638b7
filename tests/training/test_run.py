"""The command line: trains a published dataset alone, and fails with one message."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from training.config import TrainConfig
from training.forward import model
from training.loop import inputs, spread
from training.run import app


@pytest.fixture
def file(configure: Callable[..., TrainConfig], tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(yaml.safe_dump(configure(max_steps=1).model_dump(mode="json")))
    return path


def test_it_trains_and_prints_the_model_folder(file: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, [str(file), "beta=0.2", f"output_dir={tmp_path / 'out'}"])
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(tmp_path / "out" / "model")
    assert (tmp_path / "out" / "model" / "model.safetensors").exists()
    assert "train step 1/1" in result.stderr


def test_a_plan_reads_the_rows_and_loads_no_weights(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planned(*overrides: str) -> str:
        out = f"output_dir={tmp_path / 'out'}"
        result = CliRunner().invoke(app, [str(file), out, *overrides, "--plan"])
        assert result.exit_code == 0, result.output
        return result.stdout

    with monkeypatch.context() as patch:
        patch.setattr(model, "load_weights", lambda config: pytest.fail("the weights were loaded"))
        first = planned()
    assert re.search(r"dataset: \d+ rows, \d+ distinct images, the longest row \d+ tokens", first)
    assert "1 optimiser steps: " in first and "tokens an epoch" in first and "it trains from the start" in first
    assert not (tmp_path / "out").exists()
    assert CliRunner().invoke(app, [str(file), f"output_dir={tmp_path / 'out'}"]).exit_code == 0
    assert "it has finished" in planned()
    assert "it trains anew: beta was 0.1 and is 0.2" in planned("beta=0.2", "resume=if-possible")
    assert "refused: beta was 0.1 and is 0.2" in planned("beta=0.2", "resume=always")


def test_rows_are_read_before_weights(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spread, "load_weights", lambda config: pytest.fail("the weights were loaded"))
    for arguments in ([], ["--plan"]):
        result = CliRunner().invoke(app, [str(file), "dataset=/nowhere", *arguments])
        assert result.exit_code == 2 and "dataset /nowhere: cannot be opened" in result.stderr


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("dataset=/nowhere", "error: dataset /nowhere: cannot be opened"),
        ("model=/nowhere", "error: no model folder '/nowhere'\n  -> "),
        ("model=scenes-vml", "error: no model 'scenes-vml'\n  -> did you mean 'scenes-vlm'?"),
        ("lora.target_modules=[nothing]", "match no linear layer; use all-linear"),
        ("beta=no", "error: beta: "),
    ],
)
def test_an_error_is_one_message_and_status_2(file: Path, override: str, message: str) -> None:
    result = CliRunner().invoke(app, [str(file), "tuning=lora", override])
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("flags", [[], ["--plan"]])
def test_a_hub_that_is_not_asked_is_said_before_anything_is_read(
    file: Path, flags: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "read", lambda *_, **__: pytest.fail("rows were read"))
    result = CliRunner().invoke(app, [str(file), "model=nobody/has-this", *flags])
    assert result.exit_code == 2 and "'nobody/has-this' is in no cache of this machine" in result.stderr
