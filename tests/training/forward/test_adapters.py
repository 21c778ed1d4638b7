"""Adapters in one kernel are PEFT's adapters."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from training.config import make_config
from training.forward.adapters import AddedLinear
from training.forward.model import prepare_tuning


def output_and_gradients(
    make_model: Callable[..., Any], dtype: torch.dtype, fused: bool, alpha: int = 8
) -> list[Tensor]:
    options = {"dtype": str(dtype).removeprefix("torch."), "fused_adapters": fused, "lora": {"r": 4, "alpha": alpha}}
    model = prepare_tuning(
        make_model().to(dtype), make_config({"model": "m", "dataset": "d", "output_dir": "o", **options})
    )
    layers = [module for module in model.modules() if isinstance(module, AddedLinear)]
    assert len(layers) == (14 if fused else 0)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            assert parameter.dtype == torch.float32
            parameter.data.normal_(0, 0.2, generator=generator)
    ids = torch.randint(7, 20, (2, 9), generator=generator)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        states = model.get_base_model().model.language_model(input_ids=ids).last_hidden_state
    (states.float() * torch.randn(states.shape, generator=generator)).sum().backward()
    with model.disable_adapter(), torch.no_grad():
        bare = model.get_base_model().model.language_model(input_ids=ids).last_hidden_state
    gradients = [parameter.grad.flatten() for parameter in model.parameters() if parameter.grad is not None]
    assert len(gradients) == 28
    return [states.detach(), bare, torch.cat(gradients)]


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 4e-2)])
def test_output_and_gradients_are_pefts(make_model: Callable[..., Any], dtype: torch.dtype, tolerance: float) -> None:
    ours, theirs = (output_and_gradients(make_model, dtype, fused) for fused in (True, False))
    for first, other in zip(ours, theirs, strict=True):
        assert first.dtype == other.dtype and (first - other).norm() <= tolerance * other.norm()
    assert torch.equal(ours[1], theirs[1]) and not torch.equal(ours[0], ours[1])
    wrong = output_and_gradients(make_model, dtype, True, alpha=12)
    assert (wrong[0] - theirs[0]).norm() > 2 * tolerance * theirs[0].norm()
