"""Causal attention over a packed row of ``training.layout``: a branch sees its own trunk and itself, nothing else.

Registered with transformers as ``shared_prefix``, so the models' own code runs unchanged. There is no N x N mask: the
trunk and its first branch are one causal block, every further branch asks the trunk's keys and its own. Many short
groups instead go through one call, side by side under a mask. Called without a plan (a padded batch) it is
transformers' ``sdpa``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.bias import causal_lower_right
from torch.nn.functional import scaled_dot_product_attention

from training.layout import Group

NAME = "shared_prefix"

#: Groups of at most so many tokens are attended to side by side: there a call costs more than what it computes.
SIDE_BY_SIDE = 256


@dataclass(frozen=True, slots=True)
class Plan:
    """How the groups of a packed row are attended to, the same in every layer.

    ``mask`` None: group by group. Else side by side, G groups padded to L tokens: ``gather`` int64 [G * L] says which
    token of the row stands there (0 on padding), ``back`` int64 [N] where a token of the row went, and ``mask`` bool
    [G, 1, L, L] who sees whom.
    """

    groups: tuple[Group, ...]
    gather: Tensor | None = None
    back: Tensor | None = None
    mask: Tensor | None = None


def plan(groups: Sequence[Group], device: torch.device, side_by_side: int | None = None) -> Plan:
    """The plan for these groups; ``side_by_side`` overrides ``SIDE_BY_SIDE`` (0: never)."""
    limit = SIDE_BY_SIDE if side_by_side is None else side_by_side
    longest = max(group.end - group.start for group in groups)
    if longest > limit or len(groups) < 2:
        return Plan(tuple(groups))
    gather = torch.zeros(len(groups), longest, dtype=torch.long)
    mask = torch.zeros(len(groups), longest, longest, dtype=torch.bool)
    back = []
    for i, group in enumerate(groups):
        length = group.end - group.start
        gather[i, :length] = torch.arange(group.start, group.end)
        back.append(torch.arange(i * longest, i * longest + length))
        mask[i, :length, :length] = True
        for first, end in group.branches:
            mask[i, end - group.start :, first - group.start : end - group.start] = False
    mask = mask.tril() | torch.eye(longest, dtype=torch.bool)  # padding sees itself: a row of no key is not a number
    return Plan(tuple(groups), gather.flatten().to(device), torch.cat(back).to(device), mask[:, None].to(device))


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
    prefix_plan: Plan | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer; query [1, H, N, D], key and value [1, H', N, D] with H a multiple of H'.

    Returns ([1, N, H, D], None), as transformers' attention functions do.
    """
    if prefix_plan is None:
        from transformers.integrations.sdpa_attention import sdpa_attention_forward

        return sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **options
        )
    # Under autocast RoPE leaves query and key in float32, and the biased calls below pass autocast's own casting by.
    query, key = query.to(value.dtype), key.to(value.dtype)
    if prefix_plan.mask is not None:
        return _side_by_side(query, key, value, prefix_plan, scaling), None
    result = [
        part
        for group in prefix_plan.groups
        for part in _attend_group(query, key, value, group, scaling, getattr(module, "answers_only", False))
    ]
    return torch.cat(result, dim=2).transpose(1, 2), None


def _side_by_side(query: Tensor, key: Tensor, value: Tensor, plan: Plan, scale: float | None) -> Tensor:
    """Attention of all groups in one call, [1, N, H, D]."""
    assert plan.mask is not None and plan.gather is not None and plan.back is not None
    number, _, longest, _ = plan.mask.shape

    def spread(tensor: Tensor) -> Tensor:  # [1, H, N, D] to [G, H, L, D]
        rows = tensor[0].transpose(0, 1)[plan.gather]
        return rows.view(number, longest, *rows.shape[1:]).transpose(1, 2)

    result = scaled_dot_product_attention(
        spread(query),
        spread(key),
        spread(value),
        attn_mask=plan.mask,
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return result.transpose(1, 2).flatten(0, 1)[plan.back][None]


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
