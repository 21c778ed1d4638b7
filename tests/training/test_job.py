"""Training as a step of a run: it is done again when what it reads has changed, and not when that has moved."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
from PIL import Image

from pipeline.base.files import write_text
from pipeline.base.lock import locked
from pipeline.publishing.config import Publish
from pipeline.recipe.load import make_recipe
from pipeline.running.store import Run, make_record
from training import job
from training.config import TrainConfig

ROW = '{"prompt": [], "chosen": "%s"}\n'


def recipe_of(train: dict[str, Any], **source: Any) -> Any:
    values = {"name": "run", "sample": {"model": "m"}, "pair": {"weights": {"correctness": 1}}, "train": train}
    return make_recipe({**values, **({"source": source} if source else {"source": {"kind": "scenes"}})})


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
        plan: Any = SimpleNamespace(recipe=recipe_of({"model": str(base), **options}))
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


@pytest.mark.parametrize("key", ["sft.dataset", "eval_dataset"])
def test_another_picture_in_an_allowed_root_trains_again(
    trained: Callable[..., bool], tmp_path: Path, key: str
) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "rows").mkdir()
    picture, path = tmp_path / "pictures" / "a.png", tmp_path / "rows" / "extra.jsonl"
    Image.new("RGB", (8, 8)).save(picture)
    row = {"question": "q", "chosen": "a", "rejected": "b", "images": [str(picture)]}
    path.write_text(f"{json.dumps(row)}\n")
    options = {**options_of(key, path), "allowed_roots": [str(tmp_path / "pictures")]}
    assert trained(**options)
    assert not trained(**options)
    Image.new("RGB", (8, 8), "red").save(picture)
    assert trained(**options)


def test_held_out_rows_that_only_measure_do_not_train_again(trained: Callable[..., bool], tmp_path: Path) -> None:
    path = tmp_path / "extra.jsonl"
    path.write_text(ROW % "a")
    assert trained(**options_of("only measured", path))
    path.write_text(ROW % "b")
    assert not trained(**options_of("only measured", path))


@pytest.mark.parametrize("key", ["sft.dataset", "eval_dataset"])
def test_another_revision_on_the_hub_is_for_the_trainer_to_compare(
    trained: Callable[..., bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    """Another commit may have the same rows; without a network a finished training stays what it is."""
    there: dict[str, Any] = {"commit": "5a1b2c3"}

    def builder(name: str, config: str | None = None) -> Any:
        if there["commit"] is None:
            raise ConnectionError("no network")
        return SimpleNamespace(hash=there["commit"])

    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda name: ["default"])
    monkeypatch.setattr(datasets, "load_dataset_builder", builder)
    options = options_of(key, Path("owner/name"))
    assert trained(**options) and not trained(**options)
    write_text(Run(tmp_path / "run").folder("train") / "trained.json", "{}")
    there["commit"] = None
    assert not trained(**options)
    there["commit"] = "d4e5f6a"
    assert trained(**options) and (tmp_path / "run" / "train" / "trained.json").exists()
    assert not trained(**options)
    record = Run(tmp_path / "run").record("train")
    assert record is not None and record.options[key] == "owner/name@d4e5f6a"


def test_rows_that_were_published_again_are_for_the_trainer_to_compare(
    trained: Callable[..., bool], tmp_path: Path
) -> None:
    """They may have other columns only, and then what has been trained stands (``training.loop.resume``)."""
    run = Run(tmp_path / "run")

    def publish(content: str) -> None:
        run.save(replace(make_record("publish", 1, {"content": content}, {}), finished=True, made="abc"))

    assert trained() and not trained()
    write_text(run.folder("train") / "trained.json", "{}")
    publish("other")
    assert trained() and (run.folder("train") / "trained.json").exists()
    assert not trained()
    publish("a third")
    assert trained(beta=0.3) and not (run.folder("train") / "trained.json").exists()


def test_the_trainer_may_read_the_images_that_published_rows_name(tmp_path: Path) -> None:
    def roots(publish: str = "reference", **source: Any) -> Any:
        made = recipe_of({"model": "m"}, **source).model_copy(update={"publish": Publish(images=publish)})
        plan: Any = SimpleNamespace(recipe=made, base=lambda: SimpleNamespace(model="m"))
        return job.train_config(plan, Run(tmp_path)).get("allowed_roots")

    (tmp_path / "a.jsonl").write_text("")
    where = {"kind": "jsonl", "path": str(tmp_path / "*.jsonl")}
    assert roots(**where) == [str(tmp_path)]
    assert roots(**where, root=str(tmp_path / "images")) == [str(tmp_path / "images")]
    assert roots(**where, root="s3://bucket/images") == ["s3://bucket/images"]
    assert roots(kind="folder", path=str(tmp_path)) == [str(tmp_path)]
    assert roots("embed", **where) is None and roots(kind="scenes") is None
    # What is published counts, not what the recipe would publish now.
    write_text(tmp_path / "dataset" / "dataset_dict.json", '{"made": "abc"}')
    record = replace(make_record("publish", 1, {"images": "reference"}, {}), finished=True, made="abc")
    Run(tmp_path).save(record)
    assert roots("embed", **where) == [str(tmp_path)]
    # What a training may read changes nothing about what it learns.
    assert "allowed_roots" in TrainConfig.neutral()


def test_what_a_killed_training_left_is_removed_and_a_running_one_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "train"
    folder.mkdir()
    (folder / ".lock").write_text("")
    (folder / ".metrics.jsonl.1.tmp").write_text("half")
    with locked(folder, "python -m training.run"):
        job.sweep_training(folder)
        assert {path.name for path in folder.iterdir()} == {".lock", ".metrics.jsonl.1.tmp"}
    (folder / ".lock").write_text("")
    job.sweep_training(folder)
    assert list(folder.iterdir()) == []
    job.sweep_training(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_the_trainer_computes_in_the_runs_dtype_whatever_gpus_it_finds(tmp_path: Path) -> None:
    def dtype(run: str, **train: Any) -> Any:
        made = recipe_of({"model": "m"}).model_copy(update={"dtype": run, "train": train})
        plan: Any = SimpleNamespace(recipe=made, base=lambda: SimpleNamespace(model="m"))
        return job.train_config(plan, Run(tmp_path))["dtype"]

    assert (dtype("auto"), dtype("bfloat16"), dtype("bfloat16", dtype="auto")) == ("float32", "bfloat16", "bfloat16")
    assert dtype("bfloat16", dtype="float32") == "float32"
