"""Log-probs of the answers of pairs, in one forward pass."""

from __future__ import annotations

from torch import Tensor, nn

from reward.forward.token_logps import Forward, token_logps
from training.forward.batch import PairBatch


def sequence_logps(model: nn.Module, batch: PairBatch, forward: Forward = Forward()) -> Tensor:
    """log p(response | images, prompt), float64 [branches, B], summed over the response's tokens."""
    layout, logps = token_logps(model, batch, forward)
    return layout.sums(logps)[batch.order.to(logps.device)]
