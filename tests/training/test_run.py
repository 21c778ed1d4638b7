"""The command line: trains a published dataset alone, and fails with one message."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from training.config import TrainConfig
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
