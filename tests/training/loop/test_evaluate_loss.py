"""Evaluation while training: what is measured, on which pairs, when it ends the run, and what is exported then."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from training.config import TrainConfig, make_config
from training.errors import CheckpointError, DataError
from training.loop import trainer
from training.loop.evaluate_loss import Best
from training.loop.trainer import train

Configure = Callable[..., TrainConfig]


@pytest.fixture
def held_out(rows: list[dict[str, Any]], publish: Callable[..., Any], tmp_path: Path) -> str:
    """Three rows whose answers have changed sides, so that training on the others makes their loss grow."""
    for row in rows:
        row["chosen"], row["rejected"] = row["rejected"], row["chosen"]
    publish(rows[:3]).save_to_disk(str(tmp_path / "held-out"))
    return str(tmp_path / "held-out")


def logged(config: TrainConfig) -> list[dict[str, float]]:
    return [json.loads(line) for line in (config.output_dir / "metrics.jsonl").read_text().splitlines()]


def weights(config: TrainConfig) -> dict[str, torch.Tensor]:
    return load_file(config.output_dir / "model" / "model.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def evaluate_to(monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
    """Let evaluations find these losses, one after the other."""
    values = iter(losses)
    monkeypatch.setattr(trainer, "evaluate", lambda *_: {"eval/loss": next(values)})


def test_it_is_logged_with_the_training_metrics_every_eval_steps_and_at_the_end(
    configure: Configure, held_out: str
) -> None:
    config = configure(eval_dataset=held_out, eval_steps=4, logging_steps=3)
    result = train(config)
    lines = logged(config)
    assert [line["step"] for line in lines] == [3, 4, 6]
    assert ["eval/loss" in line for line in lines] == [False, True, True]
    trained = {name for name in lines[1] if name.startswith(("loss", "rewards", "logps"))}
    assert {name for name in lines[1] if name.startswith("eval/")} == {f"eval/{name}" for name in trained}
    assert result.metrics["eval/loss"] == lines[-1]["eval/loss"]
    assert (Path(held_out).parent / "held-out-reference").is_dir()


def test_on_the_training_pairs_themselves_it_is_the_training_loss_before_the_update(
    configure: Configure, dataset_folder: Path, tmp_path: Path
) -> None:
    # One step is the whole dataset, so what is evaluated after step 1 is what step 2 logs before its own update.
    config = configure(
        eval_dataset=str(dataset_folder),
        eval_steps=1,
        batch_size=8,
        micro_batch_size=3,
        warmup_ratio=0.0,
        loss_type=["sigmoid", "sft"],
    )
    train(config)
    first, second = logged(config)
    for name in ("loss", "rewards/margins", "rewards/chosen_corrupted", "logps/chosen"):
        assert first[f"eval/{name}"] == pytest.approx(second[name], abs=1e-4), name
    assert first["eval/loss"] != pytest.approx(first["loss"], abs=1e-2)  # negative control


def test_it_changes_nothing_in_training(configure: Configure, held_out: str, tmp_path: Path) -> None:
    plain = configure(output_dir=tmp_path / "plain")
    watched = configure(output_dir=tmp_path / "watched", eval_dataset=held_out, eval_steps=2)
    train(plain)
    train(watched)
    assert same(weights(plain), weights(watched))


def test_held_out_rows_are_checked_as_training_rows_are(
    configure: Configure, rows: list[dict[str, Any]], publish: Callable[..., Any], tmp_path: Path
) -> None:
    rows[1]["rejected"] = rows[1]["chosen"]
    publish(rows).save_to_disk(str(tmp_path / "tied"))
    tied = str(tmp_path / "tied")
    said = rf"^dataset {tied}: .*row 1 \(id pair-1\): chosen and rejected are the same text"
    with pytest.raises(DataError, match=said):
        train(configure(eval_dataset=tied))
    with pytest.raises(DataError, match=said):
        train(configure(dataset=tied))
    rows[1]["chosen"] = [{"role": "assistant", "content": ""}]
    publish(rows).save_to_disk(str(tmp_path / "empty"))
    with pytest.raises(
        DataError, match=rf"^dataset {tmp_path}/empty: row 1 \(id pair-1\): the chosen response is empty"
    ):
        train(configure(sft={"dataset": str(tmp_path / "empty")}))


@given(st.lists(st.floats(allow_nan=True, allow_infinity=False), max_size=12))
def test_the_best_is_the_first_lowest_loss_and_worse_counts_those_after_it(losses: list[float]) -> None:
    best = Best()
    for step, loss in enumerate(losses, start=1):
        best = best.after(step, loss)
    numbers = [loss for loss in losses if not math.isnan(loss)]
    if not numbers:
        assert best == Best(worse=len(losses))
        return
    lowest = min(numbers)
    place = next(i for i, loss in enumerate(losses) if loss == lowest)
    assert best == Best(place + 1, lowest, len(losses) - place - 1)


def test_patience_stops_the_run_and_exports_the_weights_of_the_best_step(
    configure: Configure, held_out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    options = {"eval_dataset": held_out, "eval_steps": 1, "save_steps": 1, "patience": 2}
    stopped = configure(output_dir=tmp_path / "stopped", **options)
    evaluate_to(monkeypatch, [0.9, 0.5, 0.7, float("nan"), 0.1])
    result = train(stopped)
    assert result.steps == 4
    assert [line["step"] for line in logged(stopped)] == [1, 2, 3, 4]
    assert "the lowest eval/loss, 0.5000, is that of step 2" in capsys.readouterr().err

    best = load_file(stopped.output_dir / "checkpoints" / "best-00000002" / "weights.safetensors")
    last = load_file(stopped.output_dir / "checkpoints" / "step-00000004" / "weights.safetensors")
    exported = weights(stopped)
    head = "language_model.lm_head.weight"
    assert torch.equal(exported[head], best["lm_head.weight"])
    assert not torch.equal(exported[head], last["lm_head.weight"])


def test_without_patience_the_last_weights_are_exported(
    configure: Configure, held_out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = configure(eval_dataset=held_out, eval_steps=1)
    evaluate_to(monkeypatch, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert train(config).steps == 6
    last = load_file(config.output_dir / "checkpoints" / "step-00000006" / "weights.safetensors")
    assert torch.equal(weights(config)["language_model.lm_head.weight"], last["lm_head.weight"])


@pytest.mark.parametrize("killed_at", [1, 3])
def test_a_resumed_run_goes_on_counting(
    configure: Configure, held_out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, killed_at: int
) -> None:
    options = {"eval_dataset": held_out, "eval_steps": 1, "save_steps": 2, "patience": 3, "epochs": 3}
    losses = [0.5, 0.9, 0.4, 0.6, 0.7, 0.8, 0.1, 0.1, 0.1]  # stops after step 6; the best is step 3
    whole = configure(output_dir=tmp_path / "whole", **options)
    with monkeypatch.context() as patch:
        evaluate_to(patch, losses)
        assert train(whole).steps == 6
    resumed = configure(output_dir=tmp_path / "resumed", **options)
    real, steps = trainer.backward, iter(range(100))

    def killed(*args: Any) -> Any:
        if next(steps) == killed_at:
            raise KeyboardInterrupt
        return real(*args)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        evaluate_to(patch, losses)
        patch.setattr(trainer, "backward", killed)
        train(resumed)
    kept = killed_at - killed_at % 2  # the last checkpoint
    with monkeypatch.context() as patch:
        evaluate_to(patch, losses[kept:])
        assert train(resumed).steps == 6
    assert logged(whole) == logged(resumed)
    assert same(weights(whole), weights(resumed))
    # Started again, a run that has stopped trains no further.
    with monkeypatch.context() as patch:
        patch.setattr(trainer, "backward", None)
        assert train(resumed).steps == 6


def test_held_out_pairs_may_change_when_resuming_only_if_they_do_not_decide_when_to_stop(
    configure: Configure, held_out: str
) -> None:
    train(configure(max_steps=1))
    train(configure(max_steps=1, eval_dataset=held_out, eval_steps=7))
    train(configure(max_steps=1, eval_dataset=held_out, patience=2, resume=False))
    with pytest.raises(CheckpointError, match="eval_steps was 50 and is 7"):
        train(configure(max_steps=1, eval_dataset=held_out, patience=2, eval_steps=7))


def test_with_patience_the_held_out_pairs_are_part_of_what_was_trained() -> None:
    values = {"model": "m", "dataset": "d", "output_dir": "o", "eval_dataset": "e"}
    assert "eval_dataset" not in make_config(values).result_options()
    assert make_config({**values, "patience": 1}).result_options()["eval_dataset"] == "e"
