"""The optimiser: AdamW with a learning rate per part of the model, and its schedule."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from training.config import TrainConfig
from training.forward.model import trainable
from training.forward.saved_model import part_of


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """AdamW over what moves. Tower and projector may have learning rates of their own; matrices alone are decayed,
    biases and norm scales keep their size."""
    rates = {
        "vision": config.vision_learning_rate or config.learning_rate,
        "projector": config.projector_learning_rate or config.learning_rate,
        "language": config.learning_rate,
    }
    moving = trainable(model)
    groups: dict[tuple[str, bool], list[nn.Parameter]] = {}
    for name, parameter in moving.items():
        groups.setdefault((part_of(name), parameter.ndim >= 2), []).append(parameter)
    return torch.optim.AdamW(
        [
            {"params": members, "lr": rates[part], "weight_decay": config.weight_decay if matrix else 0.0}
            for (part, matrix), members in sorted(groups.items(), key=lambda item: item[0])
        ],
        lr=config.learning_rate,
        betas=config.adam_betas,
        eps=config.adam_epsilon,
        fused=_can_fuse(list(moving.values())),
    )


def _can_fuse(parameters: Sequence[Tensor]) -> bool:
    """Whether one kernel may do all of a group, which is 3 to 5 times as fast on a CPU, too: not where some are split
    over workers and some, such as embeddings that are tied to the head, are not."""
    split = {isinstance(parameter, DTensor) for parameter in parameters}
    return len(split) == 1 and all(parameter.device.type in ("cpu", "cuda") for parameter in parameters)


def cosine_with_warmup(optimizer: torch.optim.Optimizer, steps: int, warmup_ratio: float) -> Any:
    """Linear from 0 over ceil(steps * warmup_ratio) steps, then half a cosine down to 0 at ``steps``. The last step is
    never one of the warm-up's: the first has rate 0, so a run of one step would train nothing."""
    from transformers import get_cosine_schedule_with_warmup

    warm_up = min(math.ceil(steps * warmup_ratio), max(steps - 1, 0))
    return get_cosine_schedule_with_warmup(optimizer, warm_up, steps)
