"""Log-probs of the answers of pairs, in one forward pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from reward.forward.token_logps import Forward, token_logps
from training.forward.batch import PairBatch


def sequence_logps(model: nn.Module, batch: PairBatch, forward: Forward = Forward()) -> Tensor:
    """log p(response | images, prompt), float64 [branches, B], summed over the response's tokens; 0 without a gradient
    for a branch that a pair does not have."""
    layout, logps = token_logps(model, batch, forward)
    order = batch.order.to(logps.device)
    values: Tensor = layout.sums(logps)[order]
    return torch.where(order >= 0, values, 0.0) if (batch.order < 0).any() else values
