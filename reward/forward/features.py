"""Image features: the vision tower once per distinct image, its output handed to every sequence that shows it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from reward.forward.grouped import GroupedBatch, stack_images
from reward.forward.parts import LANGUAGE, Parts

#: Model types whose ``forward`` takes ``mm_encoder_outputs`` and whose ``get_image_features`` can be split by image,
#: checked by test. Others run the tower for every group of sequences.
SHARES_FEATURES = frozenset(
    {
        *("llava", "llava_next", "llava_onevision", "qwen2_vl", "qwen2_5_vl", "qwen3_vl"),
        *("idefics3", "smolvlm", "internvl", "gemma3"),
    }
)
_LANGUAGE = frozenset({*LANGUAGE, "lm_head"})


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
    parts = Parts.of(model)
    return parts.config.model_type in SHARES_FEATURES and parts.accepts("mm_encoder_outputs")


def image_inputs(model: nn.Module, batch: GroupedBatch, share: bool, cache: FeatureCache | None) -> dict[str, Any]:
    """What the model's forward takes for the images of all groups, in the order of their placeholders."""
    device = next(model.parameters()).device
    order = [index for group in batch.group_images for index in group]
    if not order:
        return {}
    grids = [grid for prompt in batch.prompts for grid in prompt.grids]
    if share and can_share(model):
        features = _features(model, batch, cache, device)
        given: dict[str, Any] = {"mm_encoder_outputs": _encoder_output(model, [features[index] for index in order])}
        return given | ({"image_grid_thw": torch.tensor(grids, device=device)} if grids else {})
    images = [image for index in order if (image := batch.images[index]) is not None]
    return _join(images, [len(group) for group in batch.group_images if group], device)


def tower_features(model: nn.Module, images: Sequence[Mapping[str, Tensor]], device: torch.device) -> list[Tensor]:
    """What vision tower and projector make of each image, in one pass: [..., width] with one vector a placeholder.

    Three axes where the model cuts an image into tiles, [tiles, tokens, width], else two. Qwen3-VL's deepstack
    features, one tensor a layer, stand behind the others along the last axis. Each is a tensor of its own: a view would
    keep all images of the pass in memory.
    """
    # Images shown whole come last, where they are counted as the images of one prompt (as two if there is one: only
    # "several" is read).
    order = sorted(range(len(images)), key=lambda index: _whole(images[index]))
    whole = sum(map(_whole, images))
    counts = [1] * (len(images) - whole) + ([max(2, whole)] if whole else [])
    output = Parts.of(model).whole.get_image_features(**_join([images[index] for index in order], counts, device))
    pooled = output.pooler_output
    if isinstance(pooled, Tensor):
        pooled = pooled.split([images[index]["pixel_values"].shape[:-3].numel() for index in order])
    layers = [pooled, *(getattr(output, "deepstack_features", None) or ())]
    features = [torch.cat(of_image, dim=-1) for of_image in zip(*layers, strict=True)]
    return [feature for _, feature in sorted(zip(order, features, strict=True), key=lambda pair: pair[0])]


def _whole(image: Mapping[str, Tensor]) -> bool:
    return "batch_num_images" in image and image["batch_num_images"].item() > 1


def _join(images: Sequence[Mapping[str, Tensor]], counts: Sequence[int], device: torch.device) -> dict[str, Tensor]:
    """The images' inputs to the model; ``counts`` are the numbers of images per prompt."""
    inputs = stack_images([_on(device, image) for image in images])
    if "batch_num_images" in inputs:  # LLaVA-OneVision cuts an image into squares if it is its prompt's only one
        inputs["batch_num_images"] = torch.tensor(counts, device=device)
    return inputs


def _on(device: torch.device, image: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """From pinned memory a GPU copies while it computes."""
    return {key: value.to(device, non_blocking=value.is_pinned()) for key, value in image.items()}


def _features(model: nn.Module, batch: GroupedBatch, cache: FeatureCache | None, device: torch.device) -> list[Tensor]:
    """The features of each distinct image; with gradient only if tower or projector move."""
    features = dict(cache.features) if cache is not None else {}
    new = [(k, image) for k, image in zip(batch.image_keys, batch.images, strict=True) if k not in features and image]
    if new:
        moves = any(
            p.requires_grad and _LANGUAGE.isdisjoint(name.split("."))
            for name, p in Parts.of(model).whole.named_parameters()
        )
        with torch.set_grad_enabled(torch.is_grad_enabled() and moves):
            computed = tower_features(model, [image for _, image in new], device)
        features.update(zip((key for key, _ in new), computed, strict=True))
        if cache is not None:
            for key, _ in new:
                cache.add(key, features[key])
    return [features[key] for key in batch.image_keys]


def _encoder_output(model: nn.Module, features: Sequence[Tensor]) -> dict[str, Any]:
    """The inverse of ``tower_features``, in the order of the placeholders."""
    from transformers.modeling_outputs import BaseModelOutputWithPooling

    layers = len(getattr(Parts.of(model).config.vision_config, "deepstack_visual_indexes", None) or ())
    if layers:
        from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

        first, *deep = zip(*(feature.chunk(layers + 1, dim=-1) for feature in features), strict=True)
        return {"image": BaseModelOutputWithDeepstackFeatures(pooler_output=first, deepstack_features=deep)}  # type: ignore[arg-type]
    pooled = torch.cat(list(features)) if features[0].ndim == 3 else list(features)
    return {"image": BaseModelOutputWithPooling(pooler_output=pooled)}  # type: ignore[arg-type]
