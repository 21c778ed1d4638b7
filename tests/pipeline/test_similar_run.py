"""From images to a model that was trained with SymMPO, by one command; the answers are scripted, all else is real."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from stage_kit import pending, recipe
from typer.testing import CliRunner, Result

from pipeline import run as module
from pipeline.running.store import Run
from training import job
from training.config import make_config
from training.loop.trainer import train

runner = CliRunner()
TRAIN = {"model": "scenes-vlm", "objective": "symmpo", "max_steps": 2, "batch_size": 4, "logging_steps": 1}


def train_here(command: list[str]) -> int:
    """In this process, which has all that takes long to import."""
    train(make_config(yaml.safe_load(Path(command[-1]).read_text())))
    return 0


def invoke(path: Path, *arguments: str) -> Result:
    result = runner.invoke(module.app, [str(path), *arguments])
    assert result.exit_code == 0, result.output
    return result


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_symmpo_from_images_to_a_model(tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "run_child", train_here)
    values: dict[str, Any] = recipe(
        tmp_path, score={"scorers": ["objects", "correctness"]}, source={"scenes": 8, "questions_per_scene": 2}
    ).model_dump(mode="json")
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump({**values, "train": TRAIN}))
    refused = runner.invoke(module.app, [str(path)])
    assert refused.exit_code == 2 and "publish.similar" in refused.output and not (tmp_path / "run").exists()

    asked = ("publish.similar.model=scenes-clip",)
    assert "embed" in pending(invoke(path, *asked, "--plan").output)
    first = invoke(path, *asked)
    run = Run(tmp_path / "run")
    summary = json.loads((run.path / "summary.json").read_text())
    assert (
        0 < summary["similar"] < summary["pairs"] and summary["stages"]["embed"]["rows"] == run.table("source").num_rows
    )
    assert f"{summary['similar']} of them have a similar image" in first.output
    (last,) = [json.loads(line) for line in (run.path / "train/metrics.jsonl").read_text().splitlines()][-1:]
    assert last["step"] == 2 and last["loss/symmetric"] > 0

    dataset, model = content(run.path / "dataset"), content(run.path / "train" / "model")
    assert "nothing is left to do" in invoke(path, *asked, "--plan").output
    # As a kill leaves it: some images have been looked at, nothing is published.
    kept, lost = run.folder("embed") / "data-00000.arrow", run.folder("embed") / "data-00001.arrow"
    before = kept.stat().st_mtime_ns
    lost.unlink()
    shutil.rmtree(run.path / "dataset")
    assert set(pending(invoke(path, *asked, "--plan").output)) >= {"publish", "train"}
    invoke(path, *asked)
    assert lost.is_file() and kept.stat().st_mtime_ns == before
    assert content(run.path / "dataset") == dataset and content(run.path / "train" / "model") == model
    assert json.loads((run.path / "summary.json").read_text())["similar"] == summary["similar"]
