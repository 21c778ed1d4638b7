"""The command line, from images to a report; the model is scripted, the trainer a stand-in."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from stage_kit import pending, recipe
from typer.testing import CliRunner, Result

from pipeline import run as module
from pipeline.base.errors import InputError
from pipeline.base.lock import locked
from pipeline.running.store import Run
from training import job

runner = CliRunner()


def write(tmp: Path, **changes: Any) -> Path:
    values = recipe(tmp, score={"scorers": ["objects", "correctness"]}, **changes).model_dump(mode="json")
    path = tmp / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def invoke(*arguments: object) -> Result:
    return runner.invoke(module.app, [str(argument) for argument in arguments])


def stop(*_: object) -> None:
    raise InputError("stopped", "go on")


def test_the_whole_way_and_again(tmp_path: Path, ray_cluster: None, monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[dict[str, Any]] = []

    def train(command: list[str]) -> int:
        config = yaml.safe_load(Path(command[-1]).read_text())
        trained.append(config)
        model = Path(config["output_dir"]) / "model"
        model.mkdir()
        for name in ("config.json", "model.safetensors"):
            (model / name).write_text("{}")
        return 0

    monkeypatch.setattr(job, "run_child", train)
    base = tmp_path / "base"
    base.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "processor_config.json"):
        (base / name).write_text("{}")
    path = write(
        tmp_path, train={"model": str(base), "epochs": 1}, evaluate={"scenes": 4, "per_image": 1, "max_tokens": 16}
    )
    first = invoke(path)
    assert first.exit_code == 0, first.output
    run = Run(tmp_path / "run")
    summary = json.loads((run.path / "summary.json").read_text())
    assert summary["pairs"] > 0 and set(summary["evaluation"]) == {"before", "after"}
    assert set(summary["stages"]) == {
        *("source", "sample", "eval-source", "eval-before", "score", "pair", "publish", "train", "eval-after")
    }
    assert summary["stages"]["sample"]["rows"] == run.table("source").num_rows
    assert trained[0]["dataset"] == str(run.path / "dataset") and trained[0]["seed"] == 0
    assert "chair_i" in first.output and "report.html" in first.output
    assert (run.path / "report.html").is_file()

    page = (run.path / "report.html").stat().st_mtime_ns
    assert "before" in (run.path / "report.html").read_text()
    assert invoke(path).exit_code == 0 and len(trained) == 1  # nothing to do
    assert (run.path / "report.html").stat().st_mtime_ns == page
    assert json.loads((run.path / "summary.json").read_text()) == summary
    with monkeypatch.context() as patched:
        patched.setattr(job, "evaluate", stop)
        assert invoke(path).exit_code == 2  # stopped while it looks what there is to do
        assert json.loads((run.path / "summary.json").read_text()) == summary
        assert invoke(path, "pair.margin=0.6").exit_code == 2  # pairs and dataset are other ones now
        assert not (run.path / "summary.json").exists()
    assert invoke(path).exit_code == 0
    planned = invoke(path, "--plan").output
    assert "nothing is left to do" in planned and planned.count("holds") == len(summary["stages"])
    retrained = pending(invoke(path, "train.epochs=2", "--plan").output)
    assert retrained == {"train": "epochs: 1 -> 2", "eval-after": "the model is trained again"}

    again = pending(invoke(path, "pair.margin=0.75", "--plan").output)
    assert again["pair"] == "margin: 0.5 -> 0.75" and set(again) == {"pair", "publish", "train", "eval-after"}
    assert invoke(path, "train.epochs=2").exit_code == 0 and len(trained) == 2
    refused = invoke(path, "sample.n=3", "--resume", "always")
    assert refused.exit_code == 2 and "n: 4 -> 3" in refused.output


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["quickstrat"], "did you mean 'quickstart'"),
        (["quickstart", "sample.temprature=1"], "did you mean sample.temperature?"),
        (["quickstart", "train.epochs=many"], "epochs"),
        (["quickstart", "evaluate.scenes=0"], "evaluate.scenes"),
        (["quickstart", "train=null", "sample.model=./nowhere/vlm"], "no model folder './nowhere/vlm'"),
    ],
)
def test_a_mistake_is_one_message_before_anything_runs(arguments: list[str], reason: str, tmp_path: Path) -> None:
    result = invoke(*arguments, f"output_dir={tmp_path}")
    assert result.exit_code == 2 and reason in result.output
    assert result.output.startswith("error: ") and "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_debug_shows_where_an_error_comes_from() -> None:
    result = invoke("quickstrat", "--debug")
    assert result.exit_code == 2 and "Traceback" in result.output and "in load_recipe" in result.output


def test_too_many_failures_have_an_exit_code_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "prompts.jsonl").write_text('{"images": ["lost.png"], "prompt": "Describe."}\n')
    path = write(tmp_path, source={"kind": "jsonl", "path": str(tmp_path / "prompts.jsonl")})
    result = invoke(path)
    assert result.exit_code == 3 and "1 of 1 rows failed" in result.output and "lost.png" in result.output


def test_the_card_gives_a_command_that_says_nothing_of_where_it_ran(tmp_path: Path, ray_cluster: None) -> None:
    path = write(tmp_path)
    assert invoke(path, f"output_dir={tmp_path / 'elsewhere'}", "sample.n=3").exit_code == 0
    card = (tmp_path / "elsewhere" / "run" / "dataset" / "README.md").read_text()
    assert "sample.n=3" in card and "elsewhere" not in card
    assert os.environ["HF_HUB_OFFLINE"] == "1"


def test_a_run_that_somebody_works_on_can_be_looked_at_and_not_run(tmp_path: Path) -> None:
    path = write(tmp_path)
    with locked(tmp_path / "run", "python -m pipeline.run theirs"):
        refused = invoke(path)
        assert refused.exit_code == 2 and "python -m pipeline.run theirs" in refused.output
        assert f"process {os.getpid()}" in refused.output and "Traceback" not in refused.output
        assert invoke(path, "--plan").exit_code == 0
        assert [file.name for file in (tmp_path / "run").iterdir()] == [".lock"]
