"""Whether a run goes on, begins anew or is refused: by what its options, its rows and its starting model say now."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from pipeline.base.lock import locked
from training.config import TrainConfig, make_config
from training.data.identity import Identity, Rows, Start
from training.errors import CheckpointError
from training.loop import trainer
from training.loop.export import MERGED
from training.loop.resume import TRAINED, about, changes
from training.loop.trainer import train
from training.run import app

Configure = Callable[..., TrainConfig]
Publish = Callable[[list[dict[str, Any]]], datasets.Dataset]
Rows_ = list[dict[str, Any]]


class Killed(Exception):
    pass


def weights(config: TrainConfig) -> dict[str, torch.Tensor]:
    return load_file(config.output_dir / "model" / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(a[name], b[name]) for name in a)


def swapped(rows: Rows_) -> Rows_:
    return [{**row, "chosen": row["rejected"], "rejected": row["chosen"]} for row in rows]


@pytest.fixture
def write(publish: Publish, tmp_path: Path) -> Callable[..., str]:
    """Put rows where a dataset may lie already; returns its path."""

    def write(rows: Rows_, name: str = "data") -> str:
        folder = tmp_path / name / "dataset"
        publish(rows).save_to_disk(str(folder.with_suffix(".new")))
        if folder.exists():
            folder.rename(folder.with_suffix(f".{len(list(folder.parent.iterdir()))}"))
        folder.with_suffix(".new").rename(folder)
        return str(folder)

    return write


def kill_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    calls = iter(range(1000))

    def die(*_: Any) -> None:
        if next(calls) == step:
            raise Killed

    monkeypatch.setattr(trainer, "sum_gradients", die)


@pytest.mark.parametrize("finished", [True, False], ids=["finished", "half finished"])
def test_swapped_labels_are_not_taken_for_the_old_ones(
    configure: Configure,
    write: Callable[..., str],
    rows: Rows_,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    finished: bool,
) -> None:
    config = configure(dataset=write(rows), save_steps=1, max_steps=4)
    with monkeypatch.context() as patch:
        if not finished:
            kill_after(patch, step=2)
        try:
            train(config)
        except Killed:
            assert not finished
    write(swapped(rows))
    with pytest.raises(CheckpointError, match=r"dataset has other rows \(8 before, 8 now\).*resume=never"):
        train(config)
    capsys.readouterr()
    again = config.model_copy(update={"resume": "if-possible"})
    train(again)
    assert "training anew, as dataset has other rows" in capsys.readouterr().err
    fresh = configure(dataset=config.dataset, save_steps=1, max_steps=4, output_dir=config.output_dir / "fresh")
    train(fresh)
    assert same(weights(config), weights(fresh))


def test_the_command_says_so_and_does_not_exit_with_0(
    configure: Configure, write: Callable[..., str], rows: Rows_, tmp_path: Path
) -> None:
    values = configure(dataset=write(rows), max_steps=1).model_dump(mode="json")
    path = tmp_path / "train.yaml"
    path.write_text(json.dumps(values))
    assert CliRunner().invoke(app, [str(path)]).exit_code == 0
    write(swapped(rows))
    refused = CliRunner().invoke(app, [str(path)])
    assert refused.exit_code == 2 and "dataset has other rows" in refused.stderr
    assert "Traceback" not in refused.stderr
    anew = CliRunner().invoke(app, [str(path), "resume=if-possible"])
    assert anew.exit_code == 0 and "training anew" in anew.stderr


@pytest.mark.parametrize("key", ["sft.dataset", "eval_dataset"])
def test_other_sft_rows_and_held_out_rows_that_decide_are_another_run(
    configure: Configure, write: Callable[..., str], rows: Rows_, key: str
) -> None:
    extra = write(rows[:3], "extra")
    options = (
        {"sft": {"dataset": extra}} if key == "sft.dataset" else {"eval_dataset": extra, "patience": 5, "eval_steps": 1}
    )
    train(configure(max_steps=1, **options))
    train(configure(max_steps=1, **options))
    write(swapped(rows[:3]), "extra")
    with pytest.raises(CheckpointError, match=rf"{key} has other rows \(3 before, 3 now\)"):
        train(configure(max_steps=1, **options))


def test_held_out_rows_that_only_measure_are_told(
    configure: Configure, write: Callable[..., str], rows: Rows_, capsys: pytest.CaptureFixture[str]
) -> None:
    extra = write(rows[:3], "extra")
    train(configure(max_steps=1, eval_dataset=extra))
    write(rows[1:4], "extra")
    capsys.readouterr()
    train(configure(max_steps=1, eval_dataset=extra))
    assert "eval_dataset has other rows (3 before, 3 now)" in capsys.readouterr().err


def test_a_finished_run_is_not_done_again_and_a_moved_dataset_is_no_change(
    configure: Configure, write: Callable[..., str], rows: Rows_, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(dataset=write(rows), max_steps=2)
    result = train(config)
    monkeypatch.setattr(trainer, "place", None)  # nothing is run, nothing is exported
    assert train(configure(dataset=write(rows, "moved"), max_steps=2)) == result


def test_a_model_that_is_not_whole_does_not_count(configure: Configure) -> None:
    config = configure(max_steps=1)
    train(config)
    before = weights(config)
    (config.output_dir / "model" / "config.json").unlink()
    train(config)
    assert same(before, weights(config)) and (config.output_dir / "model" / "config.json").is_file()


def test_starting_over_forgets_the_model_before_anything_else(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(configure(max_steps=2, tuning="lora"))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, step=0)
        train(configure(max_steps=2, tuning="lora", beta=0.3, resume="if-possible"))
    left = {path.name for path in configure().output_dir.iterdir()}
    assert left.isdisjoint({"model", "adapter", MERGED, TRAINED, "checkpoints"})


def test_a_mistake_in_the_new_run_costs_nothing_of_the_old(configure: Configure, tmp_path: Path) -> None:
    config = configure(max_steps=1)
    train(config)
    with pytest.raises(Exception, match="nowhere"):
        train(configure(max_steps=1, dataset=str(tmp_path / "nowhere"), resume="never"))
    assert (config.output_dir / TRAINED).is_file() and weights(config)


def test_another_micro_batch_or_a_token_budget_continues_a_run(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def logged(config: TrainConfig) -> list[float]:
        return [json.loads(line)["loss"] for line in (config.output_dir / "metrics.jsonl").read_text().splitlines()]

    options = {"batch_size": 4, "save_steps": 1, "max_steps": 4}
    whole = configure(output_dir=tmp_path / "whole", micro_batch_size=4, **options)
    train(whole)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, step=1)
        train(configure(micro_batch_size=4, **options))
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, step=1)
        train(configure(micro_batch_size=1, **options))
    smaller = configure(max_tokens_per_batch=60, **options)
    train(smaller)
    assert logged(smaller) == pytest.approx(logged(whole), abs=1e-5)
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(smaller)[name], value, atol=1e-4, rtol=0)


@pytest.mark.parametrize("measured", [True, False], ids=["switched on", "switched off"])
def test_measuring_the_corrupted_image_or_not_continues_a_run(
    configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, measured: bool
) -> None:
    def options(probe_image: bool) -> TrainConfig:
        return configure(objective="dpo", max_steps=3, save_steps=1, probe_image=probe_image)

    whole = configure(objective="dpo", max_steps=3, output_dir=tmp_path / "whole")
    train(whole)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        kill_after(patch, step=1)
        train(options(not measured))
    train(options(measured))  # resume=always: nothing that it was trained on has changed
    assert same(weights(whole), weights(options(measured)))
    monkeypatch.setattr(trainer, "place", None)  # nothing is run, nothing is exported
    train(options(not measured))


def test_two_runs_at_once_in_one_folder_are_refused(configure: Configure, tmp_path: Path) -> None:
    config = configure(max_steps=1)
    path = tmp_path / "train.yaml"
    path.write_text(config.model_dump_json())
    with locked(config.output_dir, "python -m training.run theirs"):
        refused = CliRunner().invoke(app, [str(path)])
    assert refused.exit_code == 2 and "`python -m training.run theirs`, process" in refused.stderr
    assert not (config.output_dir / "metrics.jsonl").exists()
    assert CliRunner().invoke(app, [str(path)]).exit_code == 0


START = Start("weights", "config", "processor")


def an_identity(**changes: str) -> Identity:
    return Identity(replace(START, **changes), {"dataset": Rows(2, "ab", "sorted")})


def config_of(**values: Any) -> TrainConfig:
    return make_config({"model": "m", "dataset": "d", "output_dir": "o", **values})


def test_what_has_changed_is_named() -> None:
    was = json.loads(json.dumps(about(config_of(), an_identity())))
    assert changes(was, config_of(), an_identity()) == []
    assert changes(was, config_of(beta=0.3), an_identity()) == ["beta was 0.1 and is 0.3"]
    assert changes(was, config_of(), an_identity(weights="w")) == ["the weights of the starting model m changed"]
    assert changes(was, config_of(), an_identity(config="c")) == ["the config.json of the starting model m changed"]
    assert changes(was, config_of(), an_identity(processor="p")) == [
        "the image processor of the starting model m changed"
    ]
    for rows, change in (
        (Rows(2, "ba", "sorted"), "dataset has the same rows in another order"),
        (Rows(3, "abc", "others"), "dataset has other rows (2 before, 3 now)"),
    ):
        assert changes(was, config_of(), Identity(START, {"dataset": rows})) == [change]
    older = {**copy.deepcopy(was), "format": 2}
    assert changes(older, config_of(), an_identity()) == ["it was written by another version of this trainer"]


def test_runs_of_before_counted_what_was_only_measured(configure: Configure) -> None:
    start, config = Start("w", "c", "p"), configure(objective="dpo", probe_image=True)
    now = Identity(start, {"dataset": Rows(8, "trained", "sorted", probed="with the corrupted images")})
    was = about(config, Identity(start, {"dataset": Rows(8, "with the corrupted images", "sorted too")}))
    assert changes(was, config, now) == []
    assert "probed" not in about(config, now)["data"]["dataset"]


def test_where_things_lie_and_how_they_run_is_no_change() -> None:
    was = json.loads(json.dumps(about(config_of(), an_identity())))
    other = {"model": "n", "dataset": "e", "workers": 4, "sharding": "fsdp", "share_prefix": False, "save_steps": 3}
    assert changes(was, config_of(**other, micro_batch_size=1, max_tokens_per_batch=9), an_identity()) == []


@pytest.mark.parametrize(("given", "mode"), [(True, "always"), (False, "never"), ("if-possible", "if-possible")])
def test_resume_may_be_said_as_yes_or_no(given: Any, mode: str) -> None:
    assert config_of(resume=given).resume == mode
