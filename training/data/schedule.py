"""Which pairs go together: optimiser steps (windows), and within them the forward passes of every worker.

All of it is a function of (configuration, dataset, step), so resuming needs no sampler state.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from training.config import TrainConfig, TrainOptions
from training.config.steps import steps_per_epoch
from training.data.pairs import PairDataset


class Pass(NamedTuple):
    """One forward pass of one worker. If it does not ``count`` it runs only because others run one then."""

    indices: list[int]
    counts: bool


def window_of(step: int, pairs: int, config: TrainConfig) -> list[int]:
    """Indices of the pairs of one optimiser step."""
    epoch, position = divmod(step, steps_per_epoch(pairs, config))
    generator = torch.Generator().manual_seed(config.seed * 1_000_003 + epoch)
    order: list[int] = torch.randperm(pairs, generator=generator).tolist()
    return order[position * config.batch_size : (position + 1) * config.batch_size]


def read_in(steps: int, pairs: int, config: TrainConfig) -> list[int]:
    """Indices of the pairs that the first ``steps`` optimiser steps read, in ascending order."""
    if steps >= steps_per_epoch(pairs, config):
        return list(range(pairs))
    return sorted(index for step in range(steps) for index in window_of(step, pairs, config))


def micro_batches(dataset: PairDataset, indices: Sequence[int], config: TrainConfig) -> list[list[int]]:
    """The indices cut into forward passes of at most ``pass_pairs`` pairs, each as many as its ``weight``, and
    ``max_tokens_per_batch`` tokens.

    A pair that alone exceeds a limit goes alone. With ``group_by_length`` neighbours are of like length; the gradient
    is the same sum either way.
    """
    ordered = list(indices)
    if config.group_by_length:
        ordered.sort(key=lambda index: (dataset.pairs[index].tokens, index))
    batches: list[list[int]] = []
    tokens, weights = 0, 0.0
    for index in ordered:
        size, heavy = pass_tokens(dataset, index, config), weight(dataset, index, config)
        budget = config.max_tokens_per_batch
        full = not batches or weights + heavy > config.pass_pairs
        if full or (budget is not None and tokens + size > budget):
            batches.append([])
            tokens, weights = 0, 0.0
        batches[-1].append(index)
        tokens, weights = tokens + size, weights + heavy
    return batches


def shares(dataset: PairDataset, window: Sequence[int], config: TrainConfig, workers: int) -> list[list[list[int]]]:
    """Per worker its forward passes in one optimiser step, equally many for each: collectives must meet.

    A worker with fewer passes gets empty ones.
    """
    each = [micro_batches(dataset, window[rank::workers], config) for rank in range(workers)]
    most = max(map(len, each))
    return [[*passes, *([] for _ in range(most - len(passes)))] for passes in each]


def passes(
    dataset: PairDataset, window: Sequence[int], config: TrainConfig, rank: int = 0, world: int = 1
) -> list[Pass]:
    """The forward passes of one worker over the pairs of a window.

    With fsdp weights are gathered by all workers together, so each needs equally many passes: one that has run out
    runs the window's first pair again, which must not count.
    """
    share = shares(dataset, window, config, world)[rank]
    if config.sharding == "fsdp":
        return [Pass(indices or [window[0]], bool(indices)) for indices in share]
    return [Pass(indices, True) for indices in share if indices]


def mean_chosen_tokens(dataset: PairDataset, window: Sequence[int]) -> float:
    """Response tokens of chosen per pair."""
    return sum(len(dataset.pairs[index].chosen_ids) for index in window) / len(window)


def pass_tokens(dataset: PairDataset, index: int, config: TrainConfig) -> int:
    """Tokens of a pair in a forward pass: prompt and answers of all its branches."""
    pair = dataset.pairs[index]
    answers = len(pair.chosen_ids) + len(pair.rejected_ids)
    total = len(pair.prompt.ids) * (1 if config.share_prefix else 2) + answers
    if pair.corrupted is not None:
        total += len(pair.corrupted.ids) + len(pair.chosen_ids)
    if pair.similar is not None:
        total += len(pair.similar.ids) + 2 * len(pair.similar_ids) + len(pair.chosen_ids)
    return total


def weight(dataset: PairDataset, index: int, config: TrainConfig) -> float:
    """How many pairs of ``micro_batch_size`` a pair counts as (``weight_of``)."""
    pair = dataset.pairs[index]
    answers = len(pair.chosen_ids) + len(pair.rejected_ids)
    return weight_of(config, pass_tokens(dataset, index, config), len(pair.prompt.ids), answers)


def weight_of(options: TrainOptions, tokens: int, prompt: int, answers: int) -> float:
    """With ``weigh_pairs``, ``tokens`` of a pair over those of two sequences, each with a ``prompt`` of its own, which
    DPO takes elsewhere; at least 1. What is only measured keeps nothing and weighs nothing.

    mDPO's third sequence takes more than sharing the prompt of the other two saves:

    >>> options = TrainOptions(objective="mdpo")
    >>> round(weight_of(options, tokens=2 * 600 + 3 * 100, prompt=600, answers=2 * 100), 3)
    1.071
    """
    if not options.weigh_pairs or options.probes:
        return 1.0
    return max(1.0, tokens / (2 * prompt + answers))
