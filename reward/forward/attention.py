"""Causal attention over a packed row of ``reward.forward.packing``: a branch sees its own trunk and itself, nothing
else.

Registered with transformers as ``shared_prefix``, so the models' own code runs unchanged. There is no N x N mask: the
trunk and its first branch are one causal block, every further branch asks the trunk's keys and its own. Many short
groups instead go through one call, side by side under a mask. Called without a plan (a padded batch) it is
transformers' ``sdpa``.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
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
class Stretches:
    """S stretches of queries behind each other, M in all, each with keys of its own, K in all. The queries of a stretch
    are the last of its keys' positions, and each sees the keys up to its own.

    - ``gather`` int64 [M]: which token of the row asks there; None where all do, in order
    - ``back`` int64 [N]: where a token of the row went, 0 if it does not ask; None as above
    - ``lengths``, ``order``: keys are the row cut into so many tokens each, and these pieces in this order
    - ``query_starts``, ``key_starts`` int32 [S + 1]: where stretches begin, and M, K
    - ``most_queries``, ``most_keys``: of a stretch
    """

    gather: Tensor | None
    back: Tensor | None
    lengths: tuple[int, ...]
    order: tuple[int, ...]
    query_starts: Tensor
    key_starts: Tensor
    most_queries: int
    most_keys: int


@dataclass(frozen=True, slots=True)
class Plan:
    """How the groups of a packed row are attended to, the same in every layer.

    ``every`` None: group by group. ``Queries``: side by side, with the G groups' keys padded to L tokens.
    ``Stretches``: one after the other in one call. ``every`` position asks, or with ``reward.forward.last_layer`` the
    ``answers`` alone, from each group's first position that is read.
    """

    groups: tuple[Group, ...]
    every: Queries | Stretches | None = None
    answers: Queries | Stretches | None = None


def plan(
    groups: Sequence[Group], device: torch.device, side_by_side: int | None = None, one_call: bool = False
) -> Plan:
    """The plan for these groups; ``side_by_side`` overrides ``SIDE_BY_SIDE`` (0: never). With ``one_call`` all groups
    go through one call of flash attention for stretches of unequal length, whatever their size."""
    if one_call:
        return Plan(tuple(groups), _in_stretches(groups, False, device), _in_stretches(groups, True, device))
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


def _in_stretches(groups: Sequence[Group], answers: bool, device: torch.device) -> Stretches:
    asks: list[Tensor] = []
    lengths: list[int] = []
    order: list[int] = []
    queries, keys = [0], [0]
    for group in groups:
        trunk = len(lengths)
        lengths.append(group.fork - group.start)
        for number, (first, end) in enumerate(group.branches):
            if number and first == end:
                continue
            lengths.append(end - first)
            order += [trunk, len(lengths) - 1]
            first_query = first if number else max(group.start, group.read if answers else 0)
            asks.append(torch.arange(first_query, end))
            queries.append(queries[-1] + end - first_query)
            keys.append(keys[-1] + lengths[trunk] + end - first)
    gather = torch.cat(asks)
    back = torch.zeros(groups[-1].end, dtype=torch.long)
    back[gather] = torch.arange(len(gather))
    return Stretches(
        gather.to(device) if answers else None,
        back.to(device) if answers else None,
        tuple(lengths),
        tuple(order),
        torch.tensor(queries, dtype=torch.int32, device=device),
        torch.tensor(keys, dtype=torch.int32, device=device),
        max(end - first for first, end in itertools.pairwise(queries)),
        max(end - first for first, end in itertools.pairwise(keys)),
    )


def can_call_once(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether ``plan(one_call=True)`` can be used: flash attention computes in half precision on NVIDIA GPUs."""
    if device.type != "cuda" or dtype not in (torch.bfloat16, torch.float16):
        return False
    return importlib.util.find_spec("torch.nn.attention.varlen") is not None and _one_call_works(device, dtype)


@functools.cache
def _one_call_works(device: torch.device, dtype: torch.dtype) -> bool:
    """Tried once a process, forward and backward, on two small groups beside the way that has no such kernel."""
    groups = (Group(0, 40, (50, 61), 30), Group(61, 90, (95, 95), 80))
    generator = torch.Generator(device).manual_seed(0)
    shapes = ((1, 4, 95, 64), (1, 2, 95, 64), (1, 2, 95, 64))
    inputs = [torch.randn(shape, dtype=dtype, device=device, generator=generator) for shape in shapes]
    results = []
    for one_call in (True, False):
        query, key, value = tensors = [tensor.clone().requires_grad_() for tensor in inputs]
        try:
            output, _ = attend(nn.Module(), query, key, value, None, prefix_plan=plan(groups, device, 0, one_call))
            output.float().square().sum().backward()
        except Exception:  # another torch, another GPU: whatever it is, the other way works
            return False
        results.append([output.detach(), *(tensor.grad for tensor in tensors)])
    return all(
        (first - other).float().norm() <= 0.02 * other.float().norm()
        for first, other in zip(*results, strict=True)
        if first is not None and other is not None
    )


def takes_groups(device: str, dtype: torch.dtype, masked: bool) -> bool:
    """Whether a fast kernel takes fewer key heads than query heads. On a GPU flash attention alone does, with half
    precision and no mask; the math kernel, which makes all N x N scores, would step in without a word."""
    return device != "cuda" or (dtype in (torch.bfloat16, torch.float16) and not masked)


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
    asked = prefix_plan.answers if answers_only else prefix_plan.every
    if query.shape[1] != key.shape[1] and not takes_groups(query.device.type, query.dtype, isinstance(asked, Queries)):
        each = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(each, dim=1), value.repeat_interleave(each, dim=1)
    if isinstance(asked, Stretches):
        return _in_one_call(query, key, value, asked, scaling), None
    if isinstance(asked, Queries) and isinstance(prefix_plan.every, Queries):
        return _side_by_side(query, key, value, asked, prefix_plan.every.gather, scaling), None
    return _group_by_group(query, key, value, prefix_plan.groups, scaling, answers_only), None


def _in_one_call(query: Tensor, key: Tensor, value: Tensor, stretches: Stretches, scale: float | None) -> Tensor:
    """Attention of all stretches in one call, [1, N, H, D]; of no meaning at positions that do not ask."""
    query = query[0].transpose(0, 1)
    query = query.contiguous() if stretches.gather is None else query.index_select(0, stretches.gather)

    def spread(tensor: Tensor) -> Tensor:  # [1, H', N, D] to [K, H', D]
        pieces = tensor[0].transpose(0, 1).split(stretches.lengths)
        return torch.cat([pieces[number] for number in stretches.order])

    starts = (stretches.query_starts, stretches.key_starts)
    most = (stretches.most_queries, stretches.most_keys)
    result = call(query, spread(key), spread(value), starts, most, scale, causal=True)
    return (result if stretches.back is None else result.index_select(0, stretches.back))[None]


def call(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    starts: tuple[Tensor, Tensor],
    most: tuple[int, int],
    scale: float | None,
    causal: bool,
) -> Tensor:
    """Flash attention of [M, H, D] over [K, H', D], stretch by stretch in one kernel; [M, H, D].

    ``starts`` int32 [S + 1] each: where stretches of queries and of keys begin; ``most``: how many of them one has at
    most. ``causal`` is aligned at the last query and the last key.
    """
    from torch.nn.attention.varlen import varlen_attn

    window = (-1, 0) if causal else (-1, -1)
    grouped = query.shape[1] != key.shape[1]
    result: Any = varlen_attn(query, key, value, *starts, *most, scale=scale, window_size=window, enable_gqa=grouped)
    return result


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


def _group_by_group(
    query: Tensor, key: Tensor, value: Tensor, groups: Sequence[Group], scale: float | None, answers_only: bool
) -> Tensor:
    """Attention of one group after the other, [1, N, H, D]. With ``answers_only`` (``reward.forward.last_layer``) the
    stretch of a group before the first position that is read is zero."""
    gqa = query.shape[1] != key.shape[1]
    # One split a tensor, not a slice a stretch: in the backward pass each slice would be a tensor of the whole row,
    # zero but for the stretch, that is added to the others.
    lengths = [end - first for group in groups for first, end in _stretches(group)]
    queries, keys, values = (iter(tensor.split(lengths, dim=2)) for tensor in (query, key, value))
    results = []
    for group in groups:
        (start, _), *others = _stretches(group)
        q, k, v = next(queries), next(keys), next(values)
        if answers_only and group.read > start:
            skipped = group.read - start
            results.append(query.new_zeros(1, query.shape[1], skipped, value.shape[3]))
            results.append(_lower_right(q[:, :, skipped:], k, v, scale, gqa))
        else:
            results.append(scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=gqa))
        trunk = group.fork - start
        for _ in others:
            branch_keys = torch.cat([k[:, :, :trunk], next(keys)], dim=2)
            branch_values = torch.cat([v[:, :, :trunk], next(values)], dim=2)
            results.append(_lower_right(next(queries), branch_keys, branch_values, scale, gqa))
    return torch.cat([result.transpose(1, 2) for result in results], dim=1)


def _stretches(group: Group) -> list[tuple[int, int]]:
    """What is asked together: the trunk with its first branch, and every further branch that is not empty."""
    (_, first_end), *others = group.branches
    return [(group.start, first_end), *((first, end) for first, end in others if first < end)]


def _lower_right(query: Tensor, key: Tensor, value: Tensor, scale: float | None, gqa: bool) -> Tensor:
    """The queries are the last of the keys' positions: the i-th sees all keys but those of the queries after it."""
    bias: Any = causal_lower_right(query.shape[2], key.shape[2])
    return scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=scale, enable_gqa=gqa)
