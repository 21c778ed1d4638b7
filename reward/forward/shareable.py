"""Whether a model can run a prompt once for all its answers, told by its kind."""

from __future__ import annotations

from torch import nn

from reward.forward import attention
from reward.forward.parts import Parts


def why_not(model: nn.Module) -> str | None:
    """Why this model cannot share prefixes, or None if nothing speaks against it."""
    parts = Parts.of(model)
    text = parts.text_config
    kinds = sorted(set(getattr(text, "layer_types", None) or ["full_attention"]) - {"full_attention"})
    if kinds:
        # A window counts places in the row, and a recurrent state runs through it: both would cross branches.
        return f"its language model has {', '.join(kinds)} layers"
    if getattr(text, "cross_attention_layers", None):
        return "it reads images by cross-attention"
    # A model that asks which tokens are an image's lets these see each other (Gemma 3, PaliGemma).
    if getattr(text, "use_bidirectional_attention", None) or parts.accepts("token_type_ids"):
        return "its image tokens see each other in both directions"
    if parts.backbone is None or parts.head is None:
        return f"{parts.name} is not built of a `model` and an `lm_head`"
    if not getattr(parts.whole, "_supports_attention_backend", False):
        return f"{parts.name} does not take registered attention functions"
    return None


def behind_head(model: nn.Module) -> str | None:
    """What the model does to its logits behind the head, such as ``final_logit_softcapping=30.0``; None: nothing."""
    text = Parts.of(model).text_config
    for name in ("final_logit_softcapping", "logit_scale", "logits_scaling"):
        if getattr(text, name, None) not in (None, 1.0):
            return f"{name}={getattr(text, name)}"
    return None


def enable(model: nn.Module) -> None:
    """Let the language model use ``reward.forward.attention``; padded batches run as before."""
    attention.register()
    Parts.of(model).text_config._attn_implementation = attention.NAME
