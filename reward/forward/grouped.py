"""Sequences in groups that read the same prompt and images, and what the processor makes of each image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from reward.forward.packing import Row
from reward.forward.prompt import Prompt


@dataclass(frozen=True, slots=True)
class GroupedBatch:
    """S sequences in G groups, and D distinct images.

    - ``groups``: the sequences, those of one prompt together
    - ``prompts``: per group the prompt it reads
    - ``image_keys``: a name for each distinct image
    - ``images``: per distinct image every image key of the processor (``pixel_values`` [1, C, H, W] for LLaVA), or
      None where the caller said that it knows the image's features already
    - ``group_images``: for each group the indices into ``images``, in the order of the placeholders
    """

    groups: tuple[tuple[Row, ...], ...]
    prompts: tuple[Prompt, ...]
    image_keys: tuple[str, ...]
    images: tuple[Mapping[str, Tensor] | None, ...]
    group_images: tuple[tuple[int, ...], ...]


def shown_whole(processor: Any, images: int) -> bool:
    """Whether the images of a prompt with so many are shown uncut because there are several (LLaVA-OneVision)."""
    return images > 1 and "batch_num_images" in processor.model_input_names


def read_image(processor: Any, image: Any, whole: bool) -> Mapping[str, Tensor]:
    """What ``processor`` makes of one image: the keys that the model takes.

    The processor has settings of its own for its image processor, which must be the same here: InternVL's cuts images
    into tiles although its image processor by itself does not.
    """
    options = getattr(getattr(processor, "valid_processor_kwargs", None), "_defaults", {}).get("images_kwargs", {})
    output = processor.image_processor([[image, image]] if whole else image, return_tensors="pt", **options)
    return {key: value[:1] if whole else value for key, value in output.items() if key in processor.model_input_names}


def stack_images(images: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Join per-image processor outputs along the first axis, as the processor does for a list of images.

    Where other axes differ (LLaVA-NeXT: the number of tiles) the shorter ones are padded with zeros at the end;
    such models carry the true sizes in ``image_sizes``.
    """
    stacked = {}
    for key in images[0] if images else ():
        values = [image[key] for image in images]
        shape = [max(sizes) for sizes in zip(*(value.shape[1:] for value in values), strict=True)]
        stacked[key] = torch.cat([pad(value, _padding(value, shape)) for value in values])
    return stacked


def _padding(value: Tensor, shape: Sequence[int]) -> list[int]:
    pairs = [(0, want - have) for want, have in zip(shape, value.shape[1:], strict=True)]
    return [size for pair in reversed(pairs) for size in pair]
