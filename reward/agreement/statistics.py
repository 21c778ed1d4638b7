"""Pairwise accuracy and its confidence interval; pure functions of outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Agreement:
    """``accuracy`` counts a tie (equal scores) as a half; ``ties`` is their share, reported apart. ``low`` and ``high``
    bound the 95 % bootstrap interval."""

    pairs: int
    prompts: int
    accuracy: float
    low: float
    high: float
    ties: float


def outcome(better: float, worse: float) -> float:
    """1 where the better text has the higher score, 0 where it has the lower one, 0.5 for a tie.

    >>> outcome(0.3, 0.1), outcome(0.1, 0.1), outcome(-1.0, 2.0)
    (1.0, 0.5, 0.0)
    """
    return 1.0 if better > worse else 0.5 if better == worse else 0.0


def agreement(
    outcomes: Sequence[float], prompts: Sequence[int], samples: int = 1000, seed: int = 0
) -> Agreement | None:
    """
    Args:
        outcomes: of every pair.
        prompts: the prompt each pair belongs to, any integers. Prompts are resampled, not pairs: the pairs of one
            prompt share texts and are not independent.

    Returns:
        None without pairs.
    """
    if not outcomes:
        return None
    values = np.asarray(outcomes, np.float64)
    _, group = np.unique(np.asarray(prompts), return_inverse=True)
    count = int(group.max()) + 1
    right, size = np.bincount(group, values), np.bincount(group)
    # Row by row, so that memory does not grow with samples x prompts.
    generator = np.random.default_rng(seed)
    rates = np.empty(samples)
    for i in range(samples):
        drawn = np.bincount(generator.integers(0, count, count), minlength=count)
        rates[i] = (drawn @ right) / (drawn @ size)
    low, high = np.quantile(rates, (0.025, 0.975)) if samples else (np.nan, np.nan)
    return Agreement(
        pairs=len(values),
        prompts=count,
        accuracy=float(values.mean()),
        low=float(low),
        high=float(high),
        ties=float((values == 0.5).mean()),
    )
