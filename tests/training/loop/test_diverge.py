"""A training that diverges ends with the step and its pairs, and nothing that is not a number is kept or exported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from training.config import TrainConfig
from training.errors import DivergedError
from training.loop import trainer
from training.loop.diverge import check_weights
from training.loop.trainer import train
from training.loop.worker import Worker

Configure = Callable[..., TrainConfig]


def kept(config: TrainConfig) -> list[str]:
    return sorted(path.name for path in (config.output_dir / "checkpoints").glob("step-*"))


@pytest.mark.parametrize("tuning", ["full", "lora"])
def test_a_rate_far_too_high_ends_the_run_with_what_was_finite(configure: Configure, tuning: str) -> None:
    config = configure(tuning=tuning, learning_rate=1e30, warmup_ratio=0.0, weight_decay=0.0, save_steps=1)
    with pytest.raises(
        DivergedError, match=r"step \d: .*(row \d \(id pair-\d\)|weights).*learning_rate \(now 1e\+30\)"
    ):
        train(config)
    assert not (config.output_dir / "model").exists()
    for name in kept(config):
        values = load_file(config.output_dir / "checkpoints" / name / "weights.safetensors").values()
        assert all(torch.isfinite(value).all() for value in values)
    assert "NaN" not in (config.output_dir / "metrics.jsonl").read_text()


def spoil(monkeypatch: pytest.MonkeyPatch, step: int, value: float, what: str) -> None:
    """Make loss or gradient of one step (from 1) this value."""
    real, calls = trainer.backward, iter(range(1, 1000))

    def backward(policy: Any, *rest: Any) -> Any:
        loss = real(policy, *rest)
        if next(calls) != step:
            return loss
        if what == "loss":
            return loss * value
        next(p for p in policy.model.parameters() if p.grad is not None).grad.view(-1)[0] = value
        return loss

    monkeypatch.setattr(trainer, "backward", backward)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("what", "quantity"), [("loss", "the loss is"), ("gradient", "the gradient's norm is")])
def test_the_step_and_all_its_pairs_are_named_where_no_pair_alone_is_to_blame(
    configure: Configure, monkeypatch: pytest.MonkeyPatch, value: float, what: str, quantity: str
) -> None:
    config = configure(save_steps=1, batch_size=3, max_steps=5)
    spoil(monkeypatch, 3, value, what)
    with pytest.raises(
        DivergedError, match=rf"step 3: {quantity} (nan|inf)\. Its pairs are row \d .*, row \d .*resume=never"
    ):
        train(config)
    assert kept(config) == ["step-00000001", "step-00000002"]
    assert not (config.output_dir / "model").exists()
    monkeypatch.undo()
    assert train(config).steps == 5  # from the last checkpoint


def test_the_pair_whose_log_prob_is_no_number_is_named(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configure(batch_size=8, micro_batch_size=2, max_steps=2)
    real, broken = trainer.pair_logps, [False]

    def logps(policy: Any, dataset: Any, indices: list[int], config: TrainConfig) -> Any:
        shifted = dict(real(policy, dataset, indices, config))
        if broken[0] and 6 in indices:
            factor = torch.ones(len(indices), dtype=torch.float64)
            factor[list(indices).index(6)] = float("nan")
            shifted["rejected"] = shifted["rejected"] * factor
        return shifted

    monkeypatch.setattr(trainer, "pair_logps", logps)
    monkeypatch.setattr("training.loop.diverge.pair_logps", logps)
    real_backward = trainer.backward

    def second(policy: Any, data: Any, ref: Any, step: int, *rest: Any) -> Any:
        broken[0] = step == 1
        return real_backward(policy, data, ref, step, *rest)

    monkeypatch.setattr(trainer, "backward", second)
    with pytest.raises(DivergedError, match=r"step 2: .*Log-probs of row 6 \(id pair-6\) are not finite\."):
        train(config)


def test_weights_that_are_no_numbers_are_not_kept(configure: Configure) -> None:
    config = configure()
    good = {"a": nn.Parameter(torch.ones(3)), "b": nn.Parameter(torch.ones(2, 2))}
    check_weights(good, 4, config, Worker(torch.device("cpu")))
    with torch.no_grad():
        good["b"][1, 0] = float("inf")
    with pytest.raises(DivergedError, match=r"step 4: weights are not finite after its update"):
        check_weights(good, 4, config, Worker(torch.device("cpu")))


def test_the_command_ends_with_status_2_and_one_message(configure: Configure, tmp_path: Path) -> None:
    import json

    from typer.testing import CliRunner

    from training.run import app

    path = tmp_path / "train.yaml"
    values = configure(learning_rate=1e30, warmup_ratio=0.0, weight_decay=0.0, tuning="lora").model_dump(mode="json")
    path.write_text(json.dumps(values))
    ended = CliRunner().invoke(app, [str(path)])
    assert ended.exit_code == 2 and "Traceback" not in ended.stderr
    assert "step " in ended.stderr and "learning_rate" in ended.stderr
