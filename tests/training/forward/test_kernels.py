"""Which kernels attention runs with, by the names that the profiler sees: on the GPU where there is one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from training.config import TrainConfig
from training.data.pairs import PairDataset
from training.forward.model import prepare_tuning
from training.forward.policy import make_policy, pair_logps

CUDA = torch.cuda.is_available()
DEVICE = torch.device("cuda" if CUDA else "cpu")


def attention_calls(work: Callable[[], None]) -> Counter[str]:
    """``math``: calls that no fast kernel took, which keep every weight of every head; ``fast``: the others."""
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if CUDA else [])]
    with profile(activities=activities) as seen:
        work()
    calls: Counter[str] = Counter()
    for event in seen.key_averages():
        if "attention_math" in event.key:
            calls["math"] += event.count
        elif "flash_attention" in event.key or "efficient_attention" in event.key or "varlen_attn" in event.key:
            calls["fast"] += event.count
    return calls


@pytest.mark.parametrize("share_prefix", [True, False])
def test_forward_and_backward_run_with_fast_kernels_alone(
    share_prefix: bool, make_model: Callable[..., Any], pairs: PairDataset, configure: Callable[..., TrainConfig]
) -> None:
    config = configure(share_prefix=share_prefix, dtype="bfloat16" if CUDA else "float32")
    policy = make_policy(prepare_tuning(make_model().to(DEVICE), config), DEVICE, config, pairs)

    def step() -> None:
        logps = pair_logps(policy, pairs, [0, 1], config)
        torch.stack([values.sum() for values in logps.values()]).sum().backward()

    calls = attention_calls(step)
    assert calls["fast"] > 0 and calls["math"] == 0


def test_a_call_that_no_fast_kernel_takes_is_seen() -> None:
    query = torch.randn(1, 2, 8, 16, device=DEVICE, requires_grad=True)

    def step() -> None:
        with sdpa_kernel(SDPBackend.MATH):
            torch.nn.functional.scaled_dot_product_attention(query, query, query).sum().backward()

    calls = attention_calls(step)
    assert calls["math"] > 0 and calls["fast"] == 0
