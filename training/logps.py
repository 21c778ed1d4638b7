"""Response log-probs of a batch, in one forward pass.

Two savings, each exact: the vision tower runs once per distinct image of the batch instead of once per row
(``share_images``, optionally remembered in a ``FeatureCache``), and the LM head runs only on the columns that hold a
response in at least one row.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from training.batch import PairBatch, stack_images
from training.model import accepts, unwrapped

#: Model types whose ``forward`` takes ``mm_encoder_outputs`` with one [tokens, width] tensor per image in
#: ``pooler_output``, checked by test. Others run the tower on every row.
SHARES_FEATURES = frozenset({"llava"})


@dataclass
class FeatureCache:
    """Image features kept between batches, on the model's device, up to ``budget`` bytes; frozen towers only.

    Nothing is ever evicted: once full, further images are computed each time.
    """

    budget: int
    features: dict[str, Tensor] = field(default_factory=dict)
    used: int = 0

    @classmethod
    def half_of_free_memory(cls, device: torch.device) -> FeatureCache:
        """A cache that may take half of what is free on ``device`` now."""
        if device.type == "cuda":
            free = torch.cuda.mem_get_info(device)[0]
        else:
            free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return cls(budget=free // 2)

    def add(self, key: str, value: Tensor) -> None:
        """Remember ``value`` if it fits."""
        size = value.numel() * value.element_size()
        if self.used + size <= self.budget:
            self.features[key] = value
            self.used += size


def sequence_logps(
    model: nn.Module,
    batch: PairBatch,
    dtype: torch.dtype = torch.float32,
    share_images: bool = True,
    cache: FeatureCache | None = None,
) -> Tensor:
    """log p(response | images, prompt) of each row, float32 [N], summed over the response's tokens."""
    return token_logps(model, batch, dtype, share_images, cache).sum(dim=1)


def token_logps(
    model: nn.Module,
    batch: PairBatch,
    dtype: torch.dtype = torch.float32,
    share_images: bool = True,
    cache: FeatureCache | None = None,
) -> Tensor:
    """Per-token log-probs, float32 [N, T-1]: entry t is log p(token t+1 | tokens <= t), 0 outside the response.

    ``dtype`` is the autocast dtype of the forward pass; the log-softmax is always float32.
    """
    targets = batch.response_mask[:, 1:]
    columns = targets.any(dim=0).nonzero().squeeze(1)
    with torch.autocast(batch.input_ids.device.type, dtype, enabled=dtype != torch.float32):
        inputs = {
            "input_ids": batch.input_ids,
            "attention_mask": batch.attention_mask,
            **batch.token_keys,
            **_image_inputs(model, batch, share_images, cache),
        }
        if accepts(model, "logits_to_keep"):
            logits = model(**inputs, use_cache=False, logits_to_keep=columns).logits  # [N, columns, V]
        else:
            logits = model(**inputs, use_cache=False).logits[:, columns]
    scored = targets[:, columns]
    rows = logits[scored].float()  # [response tokens, V]; selected first, so that padding is never upcast
    labels = batch.input_ids[:, 1:][:, columns][scored]
    logps = rows.gather(1, labels[:, None]).squeeze(1) - rows.logsumexp(dim=1)
    return torch.zeros(targets.shape, device=logps.device).masked_scatter(targets, logps)


def can_share(model: nn.Module) -> bool:
    """Whether image features can be handed to this model instead of pixels."""
    config: Any = unwrapped(model).config
    return config.model_type in SHARES_FEATURES and accepts(model, "mm_encoder_outputs")


def _image_inputs(model: nn.Module, batch: PairBatch, share: bool, cache: FeatureCache | None) -> dict[str, Any]:
    order = [index for row in batch.row_images for index in row]
    if not order:
        return {}
    if share and can_share(model):
        features = _features(model, batch, cache)
        return {"mm_encoder_outputs": _encoder_output([features[index] for index in order])}
    images = [image for index in order if (image := batch.images[index]) is not None]
    return stack_images(images)


def _features(model: nn.Module, batch: PairBatch, cache: FeatureCache | None) -> list[Tensor]:
    """Projected features per distinct image, [tokens, width] each; with gradient only if tower or projector move."""
    known = dict(cache.features) if cache is not None else {}
    new = [(k, image) for k, image in zip(batch.image_keys, batch.images, strict=True) if k not in known and image]
    if new:
        base: Any = unwrapped(model)
        moves = any(p.requires_grad for name, p in base.named_parameters() if not _is_language(name))
        with torch.set_grad_enabled(torch.is_grad_enabled() and moves):
            computed = base.get_image_features(**stack_images([image for _, image in new])).pooler_output
        known.update(zip((key for key, _ in new), computed, strict=True))
        if cache is not None:
            for key, _ in new:
                cache.add(key, known[key].clone())  # clone: a view would keep the whole batch's tensor alive
    return [known[key] for key in batch.image_keys]


def _is_language(name: str) -> bool:
    return "language_model" in name or "lm_head" in name


def _encoder_output(features: list[Tensor]) -> dict[str, Any]:
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    return {"image": BaseModelOutputWithPooling(pooler_output=features)}  # type: ignore[arg-type]
