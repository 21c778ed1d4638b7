"""Causal attention over a packed row of ``reward.forward.packing``: a branch sees its own trunk and itself, nothing
else.

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

from reward.forward.packing import Group

NAME = "shared_prefix"

#: Groups of at most so many tokens are attended to side by side: there a call costs more than what it computes.
SIDE_BY_SIDE = 256


@dataclass(frozen=True, slots=True)
class Queries:
    """Positions of the row that ask, G groups of them side by side, padded to Q each.

    - ``gather`` int64 [G * Q]: which token of the row stands there; on padding the group's last, whose row of the mask
      has a key to see
    - ``back`` int64 [N]: where a token of the row went, 0 if it does not ask
    - ``mask`` float32 [G, 1, Q, L]: added to the scores, 0 where the key is seen and minus infinity where it is not
    """

    gather: Tensor
    back: Tensor
    mask: Tensor


@dataclass(frozen=True, slots=True)
class Plan:
    """How the groups of a packed row are attended to, the same in every layer.

    ``every`` None: group by group. Else side by side, with the G groups' keys padded to L tokens: ``every`` position
    asks, or with ``reward.forward.last_layer`` the ``answers`` alone, from each group's first position that is read.
    """

    groups: tuple[Group, ...]
    every: Queries | None = None
    answers: Queries | None = None


def plan(groups: Sequence[Group], device: torch.device, side_by_side: int | None = None) -> Plan:
    """The plan for these groups; ``side_by_side`` overrides ``SIDE_BY_SIDE`` (0: never)."""
    limit = SIDE_BY_SIDE if side_by_side is None else side_by_side
    longest = max(group.end - group.start for group in groups)
    if longest > limit or len(groups) < 2:
        return Plan(tuple(groups))
    seen = torch.zeros(len(groups), longest, longest, dtype=torch.bool)
    for i, group in enumerate(groups):
        length = group.end - group.start
        seen[i, :length, :length] = True
        for first, end in group.branches:
            seen[i, end - group.start :, first - group.start : end - group.start] = False
    mask = torch.zeros(seen.shape).masked_fill_(~seen.tril(), float("-inf"))
    every = _queries(groups, [group.start for group in groups], mask, device)
    return Plan(
        tuple(groups), every, _queries(groups, [max(group.start, group.read) for group in groups], mask, device)
    )


def _queries(groups: Sequence[Group], firsts: Sequence[int], mask: Tensor, device: torch.device) -> Queries:
    """The positions of each group from ``firsts`` on; ``mask`` float32 [G, L, L] is that of all positions."""
    start = torch.tensor([group.start for group in groups])[:, None]
    end = torch.tensor([group.end for group in groups])[:, None]
    first = torch.tensor(firsts)[:, None]
    steps = torch.arange(int((end - first).max()))
    tokens = (first + steps).clamp(max=end - 1)
    inside = first + steps < end
    back = torch.zeros(groups[-1].end, dtype=torch.long)
    back[tokens[inside]] = torch.arange(tokens.numel()).view(tokens.shape)[inside]
    rows = mask.gather(1, (tokens - start)[:, :, None].expand(-1, -1, mask.shape[2]))
    return Queries(tokens.flatten().to(device), back.to(device), rows[:, None].to(device))


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
    answers_only = getattr(module, "answers_only", False)
    if prefix_plan.every is not None and prefix_plan.answers is not None:
        queries = prefix_plan.answers if answers_only else prefix_plan.every
        return _side_by_side(query, key, value, queries, prefix_plan.every.gather, scaling), None
    result = [
        part for group in prefix_plan.groups for part in _attend_group(query, key, value, group, scaling, answers_only)
    ]
    return torch.cat(result, dim=2).transpose(1, 2), None


def _side_by_side(
    query: Tensor, key: Tensor, value: Tensor, queries: Queries, keys: Tensor, scale: float | None
) -> Tensor:
    """Attention of all groups in one call, [1, N, H, D]; of no meaning at positions that do not ask.

    ``keys`` int64 [G * L] says which token's key stands where.
    """
    number = queries.mask.shape[0]

    def spread(tensor: Tensor, places: Tensor) -> Tensor:  # [1, H, N, D] to [G, H, L, D]
        # index_select, as the backward pass of an index in brackets adds up one number at a time.
        rows = tensor[0].transpose(0, 1).index_select(0, places)
        return rows.view(number, -1, *rows.shape[1:]).transpose(1, 2)

    result = scaled_dot_product_attention(
        spread(query, queries.gather),
        spread(key, keys),
        spread(value, keys),
        attn_mask=queries.mask.to(query.dtype),
        scale=scale,
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return result.transpose(1, 2).flatten(0, 1).index_select(0, queries.back)[None]


def _attend_group(
    query: Tensor, key: Tensor, value: Tensor, group: Group, scale: float | None, answers_only: bool
) -> list[Tensor]:
    """One tensor [1, H, n, D] per stretch of the group, in order. With ``answers_only``
    (``reward.forward.last_layer``) the stretch before the first position that is read is zero."""
    gqa = query.shape[1] != key.shape[1]
    (_, first_end), *others = group.branches
    block = slice(group.start, first_end)
    if answers_only and group.read > group.start:
        skipped = query.new_zeros(1, query.shape[1], group.read - group.start, value.shape[3])
        tail = query[:, :, group.read : first_end]
        result = [skipped, _lower_right(tail, key[:, :, block], value[:, :, block], scale, gqa)]
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
        branch = slice(first, end)
        keys = torch.cat([key[:, :, trunk], key[:, :, branch]], dim=2)
        values = torch.cat([value[:, :, trunk], value[:, :, branch]], dim=2)
        result.append(_lower_right(query[:, :, branch], keys, values, scale, gqa))
    return result


def _lower_right(query: Tensor, key: Tensor, value: Tensor, scale: float | None, gqa: bool) -> Tensor:
    """The queries are the last of the keys' positions: the i-th sees all keys but those of the queries after it."""
    bias: Any = causal_lower_right(query.shape[2], key.shape[2])
    return scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale, enable_gqa=gqa)
