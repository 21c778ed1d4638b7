"""Image features: the vision tower once per distinct image, its output handed to every sequence that shows it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from training.batch import PairBatch, stack_images
from training.model import accepts, unwrapped

#: Model types whose ``forward`` takes ``mm_encoder_outputs`` with one [tokens, width] tensor per image in
#: ``pooler_output``, checked by test. Others run the tower for every group of sequences.
SHARES_FEATURES = frozenset({"llava", "llava_next", "llava_onevision", "qwen2_vl", "qwen2_5_vl"})


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


def can_share(model: nn.Module) -> bool:
    """Whether image features can be handed to this model instead of pixels."""
    config: Any = unwrapped(model).config
    return config.model_type in SHARES_FEATURES and accepts(model, "mm_encoder_outputs")


def image_inputs(model: nn.Module, batch: PairBatch, share: bool, cache: FeatureCache | None) -> dict[str, Any]:
    """What the model's forward takes for the images of all groups, in the order of their placeholders."""
    device = next(model.parameters()).device
    order = [index for group in batch.group_images for index in group]
    if not order:
        return {}
    grids = [grid for prompt in batch.prompts for grid in prompt.grids]
    if share and can_share(model):
        features = _features(model, batch, cache, device)
        given: dict[str, Any] = {"mm_encoder_outputs": _encoder_output([features[index] for index in order])}
        return given | ({"image_grid_thw": torch.tensor(grids, device=device)} if grids else {})
    images = [image for index in order if (image := batch.images[index]) is not None]
    return {key: value.to(device) for key, value in stack_images(images).items()}


def _features(model: nn.Module, batch: PairBatch, cache: FeatureCache | None, device: torch.device) -> list[Tensor]:
    """Projected features per distinct image, [tokens, width] each; with gradient only if tower or projector move."""
    known = dict(cache.features) if cache is not None else {}
    new = [(k, image) for k, image in zip(batch.image_keys, batch.images, strict=True) if k not in known and image]
    if new:
        base: Any = unwrapped(model)
        moves = any(p.requires_grad for name, p in base.named_parameters() if not _is_language(name))
        inputs = {key: value.to(device) for key, value in stack_images([image for _, image in new]).items()}
        with torch.set_grad_enabled(torch.is_grad_enabled() and moves):
            computed = base.get_image_features(**inputs).pooler_output
        known.update(zip((key for key, _ in new), computed, strict=True))
        if cache is not None:
            for key, _ in new:
                cache.add(key, known[key].clone())  # clone: a view would keep the whole batch's tensor alive
    return [known[key] for key in batch.image_keys]


def _is_language(name: str) -> bool:
    return "language_model" in name or "lm_head" in name


def _encoder_output(features: Sequence[Tensor]) -> dict[str, Any]:
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    return {"image": BaseModelOutputWithPooling(pooler_output=list(features))}  # type: ignore[arg-type]
