"""Causal attention over a packed row of ``training.layout``: a branch sees its own trunk and itself, nothing else.

Registered with transformers as ``shared_prefix``, so the models' own code runs unchanged. There is no N x N mask: the
trunk and its first branch are one causal block, every further branch asks the trunk's keys and its own. Called without
groups (a padded batch) it is transformers' ``sdpa``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from training.layout import Group

NAME = "shared_prefix"


def register() -> None:
    """Make ``NAME`` known to transformers."""
    from transformers import AttentionInterface
    from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    prefix_groups: Sequence[Group] | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer; query [1, H, N, D], key and value [1, H', N, D] with H a multiple of H'.

    Returns ([1, N, H, D], None), as transformers' attention functions do.
    """
    if prefix_groups is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    # Under autocast RoPE leaves query and key in float32, and the biased calls below pass autocast's own casting by.
    query, key = query.to(value.dtype), key.to(value.dtype)
    result = [
        part
        for group in prefix_groups
        for part in _attend_group(query, key, value, group, scaling, getattr(module, "answers_only", False))
    ]
    return torch.cat(result, dim=2).transpose(1, 2), None


def _attend_group(
    query: Tensor, key: Tensor, value: Tensor, group: Group, scale: float | None, answers_only: bool
) -> list[Tensor]:
    """One tensor [1, H, n, D] per stretch of the group, in order. With ``answers_only`` (``training.last_layer``) the
    stretch before the first position that is read is zero."""
    gqa = query.shape[1] != key.shape[1]
    (_, first_end), *others = group.branches
    block = slice(group.start, first_end)
    if answers_only and group.read > group.start:
        skipped = query.new_zeros(1, query.shape[1], group.read - group.start, value.shape[3])
        asked = query[:, :, group.read : first_end]
        result = [skipped, _lower_right(asked, key[:, :, block], value[:, :, block], scale, gqa)]
    else:
        result = [
            scaled_dot_product_attention(
                query[:, :, block], key[:, :, block], value[:, :, block], is_causal=True, scale=scale, enable_gqa=gqa
            )
        ]
    trunk = slice(group.start, group.fork)
    for first, end in others:
        if first == end:
            continue
        own = slice(first, end)
        keys = torch.cat([key[:, :, trunk], key[:, :, own]], dim=2)
        values = torch.cat([value[:, :, trunk], value[:, :, own]], dim=2)
        result.append(_lower_right(query[:, :, own], keys, values, scale, gqa))
    return result


def _lower_right(query: Tensor, key: Tensor, value: Tensor, scale: float | None, gqa: bool) -> Tensor:
    """The queries are the last of the keys' positions: the i-th sees all keys but those of the queries after it."""
    bias: Any = causal_lower_right(query.shape[2], key.shape[2])
    return scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale, enable_gqa=gqa)
