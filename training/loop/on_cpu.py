"""Before a large model is trained on a CPU, it is said how long that takes: it may be a GPU that was forgotten."""

from __future__ import annotations

import time

import torch

from training.config import TrainConfig
from training.config.steps import total_steps
from training.data.pairs import PairDataset
from training.data.schedule import pass_tokens

#: Parameters of a model that is not meant for a CPU.
LARGE = 300_000_000
#: Floating-point operations per parameter and token: a forward pass of the reference, and a forward and a backward one.
_OPERATIONS = 8
_SIDE = 1024


def notice(parameters: int, dataset: PairDataset, config: TrainConfig, speed: float) -> str | None:
    """What to say before a model of so many parameters is trained on the CPU, which does ``speed`` floating-point
    operations a second; None of a small one."""
    if parameters < LARGE:
        return None
    pairs = len(dataset.pairs)
    tokens = sum(pass_tokens(dataset, index, config) for index in range(pairs)) / pairs
    trained = total_steps(pairs, config) * config.batch_size
    hours = _OPERATIONS * parameters * tokens * trained / speed / 3600
    return (
        f"warning: no GPU is used: {parameters / 1e9:.1f} billion parameters are trained on the CPU, which will take "
        f"about {hours:,.0f} hours ({trained:,} pairs of {tokens:,.0f} tokens at {speed / 1e9:,.0f} GFLOP/s); "
        "RAY_ADDRESS names a cluster with GPUs"
    )


def measured_speed() -> float:
    """Floating-point operations a second of a matrix product of this machine, float32, with torch's threads."""
    factor = torch.ones(_SIDE, _SIDE)
    factor @ factor
    start = time.perf_counter()
    factor @ factor
    return float(2 * _SIDE**3 / (time.perf_counter() - start))
