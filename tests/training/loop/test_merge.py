"""Adapters merged into bfloat16 weights: what was learnt is in the result, and not only where it was large."""

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
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import nn

from pipeline.base.export import round_unbiased, save_for_vllm
from training.config import TrainConfig
from training.loop.merge import merge
from training.loop.optimise import cosine_with_warmup
from training.loop.trainer import train

Configure = Callable[..., TrainConfig]
WIDTH = 256


class Layers(nn.Module):
    """Weights as large as a language model's, in bfloat16."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Linear(WIDTH, WIDTH, bias=False).to(torch.bfloat16)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.first(values)
        return result


def adapted(size: float) -> Any:
    """With a LoRA whose update is ``size`` times as large as the weights, as after a few steps of a small rate."""
    model: Any = get_peft_model(Layers(), LoraConfig(r=4, lora_alpha=8, target_modules=["first"]))  # type: ignore[arg-type]
    layer = model.base_model.model.first
    with torch.no_grad():
        layer.lora_B["default"].weight.normal_(generator=torch.Generator().manual_seed(1))
        update = layer.get_delta_weight("default")
        scale = size * layer.base_layer.weight.float().norm() / update.float().norm()
        layer.lora_B["default"].weight.mul_(scale)
    return model


@pytest.mark.parametrize("size", [1e-4, 1e-3, 1e-2])
def test_an_update_too_small_for_bfloat16_is_kept_in_the_mean(size: float) -> None:
    model = adapted(size)
    start = model.base_model.model.first.base_layer.weight.detach().clone()
    update = model.base_model.model.first.get_delta_weight("default").detach().float()
    plain, merged = merge(model)
    change = plain.first.weight.float() - start.float()  # type: ignore[union-attr,operator]
    kept = float((change * update).sum() / (update * update).sum())
    assert plain.first.weight.dtype == torch.bfloat16  # type: ignore[union-attr]
    assert merged.update_kept == pytest.approx(kept, abs=1e-4) and abs(kept - 1) < 0.05
    assert merged.weights_changed == pytest.approx(float((change != 0).double().mean()))
    assert merged.noise == pytest.approx(float((change - update).norm() / update.norm()), rel=1e-3)


def test_rounded_to_the_nearest_it_would_be_lost() -> None:
    """A negative control: what PEFT's own merging does."""
    model = adapted(1e-3)
    start = model.base_model.model.first.base_layer.weight.detach().clone()
    update = model.base_model.model.first.get_delta_weight("default").detach().float()
    change = model.merge_and_unload().first.weight.float() - start.float()
    assert float((change * update).sum() / (update * update).sum()) < 0.5


def test_float32_weights_take_the_whole_update() -> None:
    model = adapted(1e-3).float()
    layer = model.base_model.model.first
    wanted = layer.base_layer.weight.detach() + layer.get_delta_weight("default").detach()
    plain, merged = merge(model)
    torch.testing.assert_close(plain.first.weight, wanted)  # type: ignore[union-attr]
    assert merged.update_kept == pytest.approx(1, abs=1e-3) and not hasattr(plain.first, "lora_A")


def test_an_adapter_that_does_nothing_changes_nothing() -> None:
    model: Any = get_peft_model(Layers(), LoraConfig(r=4, target_modules=["first"]))  # type: ignore[arg-type]
    plain, merged = merge(model)
    assert torch.equal(plain.first.weight, Layers().first.weight)  # type: ignore[arg-type]
    assert (merged.update_kept, merged.weights_changed, merged.noise) == (None, 0.0, None)
    assert "no weight has moved" in str(merged) and "%" not in str(merged)


@given(st.floats(-(2.0**99), 2.0**99, width=32, allow_subnormal=False), st.text(max_size=5))
def test_a_value_becomes_one_of_its_neighbours_and_the_same_each_time(value: float, name: str) -> None:
    values = torch.full((64,), value)
    rounded = round_unbiased(values, torch.bfloat16, name)
    assert torch.equal(rounded, round_unbiased(values, torch.bfloat16, name))
    nearest = values.bfloat16().float()
    step = (values - nearest).abs()
    assert ((rounded.float() - values).abs() <= torch.maximum(step, values.abs() * 2**-7)).all()
    assert torch.equal(round_unbiased(nearest, torch.bfloat16, name).float(), nearest)


def test_what_is_no_number_or_has_no_end_stays_so() -> None:
    odd = torch.tensor([float("nan"), float("inf"), -float("inf"), 3.4e38, 0.0, -0.0, 1e-45])
    rounded = round_unbiased(odd, torch.bfloat16, "odd").float()
    assert rounded[0].isnan() and rounded[1:3].tolist() == [float("inf"), -float("inf")]
    assert rounded[4:6].tolist() == [0.0, 0.0] and rounded[6] >= 0


def test_a_saved_model_keeps_small_changes_if_asked(
    make_model: Callable[..., Any], processor: Any, tmp_path: Path
) -> None:
    """Full tuning has float32 weights whose changes a bfloat16 folder must not lose either."""
    model = make_model()
    name = "language_model.model.layers.0.mlp.up_proj.weight"
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16().float())
        moved = next(value for key, value in model.named_parameters() if key.endswith("layers.0.mlp.up_proj.weight"))
        start = moved.detach().clone()
        update = 2e-4 * start.abs()
        moved.add_(update)
    kept = []
    for unbiased in (True, False):
        folder = save_for_vllm(model, processor, tmp_path / str(unbiased), torch.bfloat16, unbiased=unbiased)
        saved = load_file(folder / "model.safetensors")
        change = next(value for key, value in saved.items() if key.endswith(name[15:])).float() - start
        kept.append(float(change.sum() / update.sum()))
    assert kept[0] == pytest.approx(1, abs=0.25) and kept[1] == 0


def test_training_says_how_much_of_the_update_is_in_the_model(
    configure: Configure, capfd: pytest.CaptureFixture[str]
) -> None:
    config = configure(tuning="lora", max_steps=2, lora={"r": 2, "alpha": 4}, dtype="bfloat16", learning_rate=1e-4)
    train(config)
    merged = json.loads((config.output_dir / "merged.json").read_text())
    assert merged["update_kept"] == pytest.approx(1, abs=0.3) and merged["weights_changed"] < 1
    assert "of the update kept" in capfd.readouterr().err


def test_a_run_of_one_step_moves_weights(configure: Configure) -> None:
    config = configure(tuning="lora", max_steps=1, lora={"r": 2, "alpha": 4}, learning_rate=1e-2)
    train(config)
    merged = json.loads((config.output_dir / "merged.json").read_text())
    assert merged["update_kept"] is not None and merged["weights_changed"] > 0


@given(st.integers(1, 300), st.floats(0, 1))
def test_some_step_has_a_learning_rate_whatever_the_share_of_the_warm_up(steps: int, ratio: float) -> None:
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler, rates = cosine_with_warmup(optimizer, steps, ratio), []
    for _ in range(steps):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert max(rates) == 1.0  # the one that is named
    top = rates.index(1.0)
    assert top == min(math.ceil(steps * ratio), steps - 1)
    assert rates[:top] == sorted(rates[:top]) and rates[top:] == sorted(rates[top:], reverse=True)
