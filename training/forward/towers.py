"""Vision towers that attend within windows or images, all of them in one call.

The Qwen-VL towers cut their tokens into windows (Qwen2.5-VL: 100 and more an image) and call attention for each by
itself, unless the attention is called flash something: then it gets all tokens and where windows begin. What is
registered here under such a name is torch's own kernel, so that no further package is needed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from reward.forward import attention
from reward.forward.parts import Parts

#: transformers takes every name with "flash" in it for one that reads where windows begin.
NAME = "flash_windows"
#: Model types whose tower is known to pass these on, checked by test.
_TYPES = frozenset({"qwen2_vl", "qwen2_5_vl", "qwen3_vl"})


def read_windows_in_one_call(model: nn.Module) -> None:
    """Let the tower do so where it can, from now on; other models stay as they are."""
    parts = Parts.of(model)
    if parts.config.model_type not in _TYPES:
        return
    from transformers import AttentionInterface

    AttentionInterface.register(NAME, attend)
    parts.backbone.visual.config._attn_implementation = NAME


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any = None,
    scaling: float | None = None,
    cu_seq_lens_q: Tensor | None = None,
    max_length_q: Any = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention within each of the windows that begin at ``cu_seq_lens_q`` int32 [windows + 1].

    Query, key and value [1, H, N, D]; returns ([1, N, H, D], None).
    """
    assert cu_seq_lens_q is not None
    # Rotary embeddings leave queries and keys in float32 under autocast.
    query, key, value = (tensor[0].transpose(0, 1).to(value.dtype).contiguous() for tensor in (query, key, value))
    starts = cu_seq_lens_q.to(torch.int32)
    return attention.call(query, key, value, (starts, starts), (int(max_length_q),) * 2, scaling, causal=False)[
        None
    ], None
