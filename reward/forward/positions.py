"""Position ids of a packed row: one number a token, or three in models with multimodal RoPE (the Qwen-VL family)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from reward.forward.packing import Packed
from reward.forward.parts import Parts
from reward.forward.prompt import Prompt


def position_ids(model: nn.Module, packed: Packed, prompts: Sequence[Prompt]) -> Tensor:
    """int64 [1, N], or [3, 1, N] (time, height, width); every branch goes on where its prompt ended.

    ``prompts`` are the prompts of the groups. The model's own ``get_rope_index`` numbers each prompt; what follows is
    text, whose three numbers are equal and grow by one.
    """
    backbone = Parts.of(model).backbone
    if not hasattr(backbone, "get_rope_index"):
        return packed.offsets[None]
    parts = []
    for group, prompt in zip(packed.groups, prompts, strict=True):
        numbered = _number(backbone, prompt)
        length = numbered.shape[1]
        offsets = packed.offsets[group.start : group.end]
        behind = numbered.max() + 1 + offsets - length
        parts.append(torch.where(offsets < length, numbered[:, offsets.clamp(max=length - 1)], behind))
    return torch.cat(parts, dim=1)[:, None]


def _number(model: Any, prompt: Prompt) -> Tensor:
    """The prompt's own numbers, int64 [3, P]."""
    ids = torch.tensor([prompt.ids])
    kinds = prompt.keys.get("mm_token_type_ids", (0,) * len(prompt.ids))
    grid = torch.tensor(prompt.grids) if prompt.grids else None
    positions, _ = model.get_rope_index(
        input_ids=ids, mm_token_type_ids=torch.tensor([kinds]), image_grid_thw=grid, attention_mask=torch.ones_like(ids)
    )
    return positions[:, 0]
