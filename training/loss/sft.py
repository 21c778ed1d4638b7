"""HA-DPO's auxiliary stream (arXiv 2311.16839): good answers of another dataset, learnt by their likelihood.

The loss of a step is ``weight`` times the mean negative log-prob over all answer tokens of the step's rows, on whatever
worker and in whatever forward pass they run. The paper's code has it in its MiniGPT-4 trainer, with weight 0.5.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import datasets
import torch
from torch import Tensor

from training.config import Sft, TrainConfig
from training.data import dataset as data
from training.data.pairs import PairDataset
from training.data.prepared import Keep, in_memory
from training.forward.batch import collate
from training.forward.logps import sequence_logps
from training.forward.policy import Policy

#: The metric: mean negative log-prob per answer token, before the weight.
NAME = "loss/sft"


def prepare(
    rows: datasets.Dataset,
    processor: Any,
    config: TrainConfig,
    positions: int | None = None,
    advance: Callable[[int], None] = lambda rows: None,
    keep: Keep = in_memory,
) -> PairDataset:
    """Rows with the columns ``images``, ``prompt`` and ``chosen``, tokenised as the chosen side of pairs is.

    Raises:
        DataError: as ``training.data.dataset.prepare``.
    """
    kept = [name for name in rows.column_names if name in ("id", "images", "prompt", "chosen", "tools")]
    return data.prepare_chosen(rows.select_columns(kept), processor, config, positions, advance, keep)


def rows_of(step: int, rows: int, config: TrainConfig) -> list[int]:
    """Indices of the rows of one optimiser step: all rows once in one order, then once in another, and so on.

    A function of (seed, step), so resuming needs no state. Unlike pairs, a step always has its full number.
    """
    assert isinstance(config.sft, Sft)
    size = config.sft.batch_size or config.batch_size
    places = [divmod(place, rows) for place in range(step * size, (step + 1) * size)]
    orders = {epoch: _order(epoch, rows, config.seed) for epoch in {epoch for epoch, _ in places}}
    return [orders[epoch][place] for epoch, place in places]


def negative_logps(policy: Policy, dataset: PairDataset, indices: Sequence[int]) -> Tensor:
    """-log p(answer | images, prompt), float32 [B], summed over the answer's tokens."""
    forward = policy.forward
    features = forward.cache.features if forward.cache else ()
    batch = collate(dataset, indices, ("chosen",), features, forward.share_prefix, policy.images.read)
    return -sequence_logps(policy.model, batch, forward)[0]


def _order(epoch: int, rows: int, seed: int) -> list[int]:
    # Apart from the orders of the pairs, whose seeds are not negative.
    generator = torch.Generator().manual_seed(-1 - (seed * 1_000_003 + epoch))
    order: list[int] = torch.randperm(rows, generator=generator).tolist()
    return order
