"""Response log-probs of a batch, in one forward pass.

Savings, each exact and each with a switch in ``Forward``: a pair's prompt and image run once for all its answers, the
vision tower runs once per distinct image, the last decoder layer and the language-model head run on response positions
only, the head in pieces.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from reward.forward import attention
from reward.forward.features import FeatureCache, image_inputs
from reward.forward.grouped import GroupedBatch
from reward.forward.last_layer import can_skip, only
from reward.forward.packing import Padded, Row, pack, pad
from reward.forward.parts import Parts
from reward.forward.positions import position_ids


@dataclass(frozen=True)
class Forward:
    """How a forward pass runs. ``dtype`` is its autocast dtype; log-probs are always computed in float32.

    ``head_chunk`` is the number of response tokens per pass through the head (None: all at once);
    ``response_only=False`` runs it on every position, as TRL does on a CPU. ``last_layer_on_responses`` takes effect
    with ``share_prefix`` only. With ``one_call`` attention of all groups is one call (``attention.can_call_once``).
    """

    dtype: torch.dtype = torch.float32
    share_prefix: bool = True
    share_images: bool = True
    head_chunk: int | None = None
    response_only: bool = True
    last_layer_on_responses: bool = True
    padding: int = 0
    one_call: bool = False
    cache: FeatureCache | None = None

    @property
    def naive(self) -> Forward:
        """The same forward pass without any saving."""
        return replace(self, share_prefix=False, share_images=False, head_chunk=None, response_only=False, cache=None)


def token_logps(model: nn.Module, batch: GroupedBatch, forward: Forward = Forward()) -> tuple[Any, Tensor]:
    """The layout and its entries' log-probs, float32 [E]."""
    with _autocast(model, forward):
        layout, states = token_states(model, batch, forward)
        head, read, targets = Parts.of(model).head, layout.read.to(states.device), layout.targets.to(states.device)
        if not forward.response_only:
            return layout, target_logps(head(states)[read], targets)
        return layout, head_logps(head, states.index_select(0, read), targets, forward.head_chunk)


def token_states(model: nn.Module, batch: GroupedBatch, forward: Forward = Forward()) -> tuple[Any, Tensor]:
    """The layout and the hidden state of every position [N, H]; those that are not read may have no meaning."""
    device = next(model.parameters()).device
    layout: Any
    inputs: dict[str, Any]
    if forward.share_prefix:
        layout = pack(batch.groups)
        inputs = {
            "input_ids": layout.ids[None].to(device),
            "position_ids": position_ids(model, layout, batch.prompts).to(device),
            # Taken as it is because it has four axes; ``attention.attend`` needs none.
            "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device=device),
            "prefix_plan": attention.plan(layout.groups, device, one_call=forward.one_call),
        }
    else:
        layout = pad([row for group in batch.groups for row in group], forward.padding)
        inputs = {"input_ids": layout.ids.to(device), "attention_mask": layout.mask.to(device)}
        inputs |= {key: value.to(device) for key, value in _token_keys(batch, layout).items()}
        batch = _one_group_each(batch)
    with _autocast(model, forward):
        images = image_inputs(model, batch, forward.share_images, forward.cache)
        narrowed: Any = contextlib.nullcontext()
        if forward.share_prefix and forward.response_only and forward.last_layer_on_responses and can_skip(model):
            narrowed = only(model, torch.unique(layout.read.to(device)))
        with narrowed:
            made = Parts.of(model).backbone(**inputs, **images, use_cache=False)
            return layout, made.last_hidden_state.flatten(0, 1)


def _autocast(model: nn.Module, forward: Forward) -> torch.autocast:
    device = next(model.parameters()).device
    return torch.autocast(device.type, forward.dtype, enabled=forward.dtype != torch.float32)


def target_logps(logits: Tensor, targets: Tensor, reduction: Literal["none", "mean"] = "none") -> Tensor:
    """log p(targets): float32 [N], or their mean.

    Args:
        logits: of any floating dtype [N, V]; the softmax is computed in float32.
        targets: int64 [N].

    >>> target_logps(torch.zeros(2, 4), torch.tensor([0, 3])).exp().tolist()
    [0.25, 0.25]
    """
    return -cross_entropy(logits.float(), targets, reduction=reduction)


def head_logps(head: nn.Module, states: Tensor, targets: Tensor, chunk: int | None = None) -> Tensor:
    """log p(targets) from hidden states [E, H], float32 [E].

    More than ``chunk`` rows go through the head in pieces that are computed again in the backward pass, so no more than
    ``chunk`` rows of logits are ever held.
    """
    if chunk is None or len(states) <= chunk:
        return _head(head, states, targets)
    pieces = zip(states.split(chunk), targets.split(chunk), strict=True)
    again = partial(checkpoint, partial(_head, head), use_reentrant=False, preserve_rng_state=False)
    return torch.cat([again(piece, wanted) for piece, wanted in pieces])


def _head(head: nn.Module, states: Tensor, targets: Tensor) -> Tensor:
    return target_logps(head(states), targets)


def _token_keys(batch: GroupedBatch, layout: Padded) -> dict[str, Tensor]:
    """The processor's further per-token outputs, int64 [S, T] each, 0 on responses and padding."""
    rows = [prompt for group, prompt in zip(batch.groups, batch.prompts, strict=True) for _ in group]
    token_keys = {key: torch.zeros_like(layout.ids) for prompt in rows for key in prompt.keys}
    for i, prompt in enumerate(rows):
        for key, values in prompt.keys.items():
            token_keys[key][i, : len(values)] = torch.tensor(values)
    return token_keys


def _one_group_each(batch: GroupedBatch) -> GroupedBatch:
    """Images are wanted once per row where every row reads its own."""
    spread: list[tuple[Row, Any, tuple[int, ...]]] = [
        (row, prompt, images)
        for group, prompt, images in zip(batch.groups, batch.prompts, batch.group_images, strict=True)
        for row in group
    ]
    return replace(
        batch,
        groups=tuple((row,) for row, _, _ in spread),
        prompts=tuple(prompt for _, prompt, _ in spread),
        group_images=tuple(images for _, _, images in spread),
    )
