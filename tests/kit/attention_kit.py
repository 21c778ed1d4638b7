"""What stands on a CPU for flash attention over stretches of unequal length."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention


def stretch_by_stretch(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: tuple[Tensor, Tensor],
    most: tuple[int, int],
    scale: float | None,
    causal: bool,
) -> Tensor:
    """As ``reward.forward.attention.call``, in a loop and with a mask."""
    asking, asked = (list(itertools.pairwise(each.tolist())) for each in starts)
    assert {each.dtype for each in starts} == {torch.int32}
    assert most == tuple(max(end - first for first, end in each) for each in (asking, asked))
    assert asking[-1][1] == len(query) and asked[-1][1] == len(key) == len(value)
    results = []
    for (first, end), (first_key, end_key) in zip(asking, asked, strict=True):
        q, k, v = (
            tensor[low:high].transpose(0, 1)
            for tensor, low, high in ((query, first, end), (key, first_key, end_key), (value, first_key, end_key))
        )
        seen = torch.ones(end - first, end_key - first_key, dtype=torch.bool)
        if causal:
            seen = seen.tril(diagonal=seen.shape[1] - seen.shape[0])
        grouped = q.shape[0] != k.shape[0]
        results.append(scaled_dot_product_attention(q, k, v, attn_mask=seen, scale=scale, enable_gqa=grouped))
    return torch.cat([result.transpose(0, 1) for result in results])
