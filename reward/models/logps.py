"""The log-prob of a token under a language model: once, for what scores a text and for what trains on it."""

from __future__ import annotations

from typing import Literal

from torch import Tensor
from torch.nn.functional import cross_entropy


def target_logps(logits: Tensor, targets: Tensor, reduction: Literal["none", "mean"] = "none") -> Tensor:
    """log p(targets): float32 [N], or their mean.

    Args:
        logits: of any floating dtype [N, V]; the softmax is computed in float32.
        targets: int64 [N].

    >>> import torch
    >>> target_logps(torch.zeros(2, 4), torch.tensor([0, 3])).exp().tolist()
    [0.25, 0.25]
    """
    return -cross_entropy(logits.float(), targets, reduction=reduction)
