"""A prompt as a vision-language model reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question next to its images, as the model reads it.

    ``images`` are content hashes, in the order of the placeholders. ``keys`` are the processor's further per-token
    outputs (``mm_token_type_ids``, ...), each as long as ``ids``; ``grids`` the (t, h, w) patches per image of models
    with multimodal RoPE, else empty.
    """

    ids: tuple[int, ...]
    images: tuple[str, ...]
    keys: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    grids: tuple[tuple[int, ...], ...] = ()
