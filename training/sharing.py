"""Whether a model can run a pair's prompt once for all answers, and a check that it does so without changing a number.

Decided once, before training: by the model's kind, then by trying the first pair both ways. Where it cannot, every
answer runs in a row of its own, and the reason is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from training import attention
from training.batch import Branch, answer, collate
from training.errors import ModelError
from training.logps import Forward, sequence_logps
from training.model import accepts, unwrapped
from training.pairs import PairDataset

#: How far the two ways may be apart, in nats per response token; a wrong mask or position is off by more than 0.1.
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2}


def why_not(model: nn.Module) -> str | None:
    """Why this model cannot share prefixes, or None if nothing speaks against it."""
    base: Any = unwrapped(model)
    text = base.config.get_text_config()
    kinds = sorted(set(getattr(text, "layer_types", None) or ["full_attention"]) - {"full_attention"})
    if kinds:
        # A window counts places in the row, and a recurrent state runs through it: both would cross branches.
        return f"its language model has {', '.join(kinds)} layers"
    if getattr(text, "cross_attention_layers", None):
        return "it reads images by cross-attention"
    # A model that asks which tokens are an image's lets these see each other (Gemma 3, PaliGemma).
    if getattr(text, "use_bidirectional_attention", None) or accepts(base, "token_type_ids"):
        return "its image tokens see each other in both directions"
    if not hasattr(base, "model") or not hasattr(base, "lm_head"):
        return f"{type(base).__name__} is not built of a `model` and an `lm_head`"
    if not getattr(base, "_supports_attention_backend", False):
        return f"{type(base).__name__} does not take registered attention functions"
    return None


def check_head(model: nn.Module) -> None:
    """Raise ``ModelError`` unless logits are the head's output and nothing else: only the head is run in training."""
    base: Any = unwrapped(model)
    text = base.config.get_text_config()
    for name in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(text, name, None) not in (None, 1.0):
            raise ModelError(
                f"{type(base).__name__} changes its logits behind the head ({name}={getattr(text, name)}), which "
                "training does not do, so every log-prob would be wrong; use a model without it"
            )


def enable(model: nn.Module) -> None:
    """Let the language model use ``training.attention``; padded batches run as before."""
    attention.register()
    base: Any = unwrapped(model)
    text = base.config.get_text_config()
    text._attn_implementation = attention.NAME


def decide(
    model: nn.Module, dataset: PairDataset, branches: Sequence[Branch], forward: Forward, pairs: int = 1
) -> tuple[Forward, str]:
    """The forward pass to train with, and a sentence that says whether prefixes are shared and if not, why.

    Raises ``ModelError`` if the model's log-probs cannot be computed either way.
    """
    check_head(model)
    if not forward.share_prefix:
        return forward, "prefix sharing: off (share_prefix=false)"
    alone = replace(forward, share_prefix=False)
    reason = why_not(model)
    if reason is None:
        enable(model)
        try:
            apart = difference(model, dataset, range(min(pairs, len(dataset.pairs))), branches, forward, alone)
        except Exception as error:  # a model whose forward does not pass the groups on fails in its own way
            reason = f"its forward failed with a packed row ({type(error).__name__}: {error})"
        else:
            if apart <= TOLERANCE[forward.dtype]:
                return forward, f"prefix sharing: on (log-probs apart by at most {apart:.1g} nats per token)"
            reason = f"log-probs were apart by {apart:.3g} nats per token"
    return alone, f"prefix sharing: off, as {reason}"


@torch.no_grad()
def difference(
    model: nn.Module,
    dataset: PairDataset,
    indices: Sequence[int],
    branches: Sequence[Branch],
    one: Forward,
    other: Forward,
) -> float:
    """The largest difference of a sequence's log-prob between two ways, in nats per response token."""
    results = []
    for forward in (one, other):
        batch = collate(dataset, indices, branches, share_prefix=forward.share_prefix)
        results.append(sequence_logps(model, batch, replace(forward, cache=None)))
    lengths = torch.tensor([[len(answer(dataset.pairs[index], branch)) for index in indices] for branch in branches])
    return ((results[0] - results[1]).abs() / lengths.to(results[0].device)).max().item()
