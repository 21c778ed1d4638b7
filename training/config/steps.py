"""How many optimiser steps a number of pairs comes to."""

from __future__ import annotations

import math

from training.config import TrainConfig

#: Checkpoints that are kept, the newest ones.
KEEP = 2


def steps_per_epoch(pairs: int, config: TrainConfig) -> int:
    """The last step of an epoch takes the pairs that are left, however few."""
    return math.ceil(pairs / config.batch_size)


def total_steps(pairs: int, config: TrainConfig) -> int:
    """Optimiser steps of the whole run."""
    steps = config.epochs * steps_per_epoch(pairs, config)
    return min(steps, config.max_steps) if config.max_steps is not None else steps
