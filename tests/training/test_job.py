"""Training as a step of a run: it is done again when what it reads has changed, and not when that has moved."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.files import write_text
from pipeline.store import Run, make_record
from training import job

ROW = '{"prompt": [], "chosen": "%s"}\n'


@pytest.fixture
def trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., bool]:
    """Asks for training with these options; says whether it was started."""
    run = Run(tmp_path / "run")
    run.save(replace(make_record("publish", 1, {"content": "abc"}, {}), finished=True, made="abc"))
    write_text(run.path / "dataset" / "dataset_dict.json", '{"made": "abc"}')
    base = tmp_path / "base"
    base.mkdir()
    (base / "config.json").write_text("{}")
    started: list[list[str]] = []

    def start(command: list[str]) -> int:
        started.append(command)
        (run.folder("train") / "model").mkdir(exist_ok=True)
        (run.folder("train") / "model" / "config.json").write_text("{}")
        return 0

    monkeypatch.setattr(job, "run_child", start)

    def ask(**options: Any) -> bool:
        plan: Any = SimpleNamespace(recipe=SimpleNamespace(seed=0, train={"model": str(base), **options}))
        plan.base = lambda: SimpleNamespace(model=str(base))
        before = len(started)
        job.train(plan, run, run.path / "dataset", "if-possible")
        return len(started) > before

    return ask


def options_of(key: str, path: Path) -> dict[str, Any]:
    if key == "sft.dataset":
        return {"sft": {"dataset": str(path)}}
    return {"eval_dataset": str(path), **({"patience": 2} if key == "eval_dataset" else {})}


@pytest.mark.parametrize("key", ["sft.dataset", "eval_dataset"])
def test_other_rows_in_the_same_file_train_again_and_the_same_rows_elsewhere_do_not(
    trained: Callable[..., bool], tmp_path: Path, key: str
) -> None:
    path = tmp_path / "extra.jsonl"
    path.write_text(ROW % "a")
    assert trained(**options_of(key, path))
    assert not trained(**options_of(key, path))
    moved = path.rename(tmp_path / "moved.jsonl")
    assert not trained(**options_of(key, moved))
    moved.write_text(ROW % "b")
    assert trained(**options_of(key, moved))


def test_held_out_rows_that_only_measure_do_not_train_again(trained: Callable[..., bool], tmp_path: Path) -> None:
    path = tmp_path / "extra.jsonl"
    path.write_text(ROW % "a")
    assert trained(**options_of("only measured", path))
    path.write_text(ROW % "b")
    assert not trained(**options_of("only measured", path))
