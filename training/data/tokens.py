"""Rendered texts and images to token ids, as the model's own processor makes them.

A processor resizes an image in order to count its placeholders. That count depends on the image's size and on nothing
else of it, so a prompt is put through the processor once per text and sizes of images; answers go through it together.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from PIL import Image

from reward.forward.prompt import Prompt


@dataclass(frozen=True)
class Encoder:
    """A processor, and what it has made of prompts so far.

    With ``add_bos``, prompts begin as those that vLLM samples from: with one begin-of-text token where the tokenizer
    puts one before every text, whether the chat template writes it or not. Without, a prompt has what the template
    wrote, as in TRL.
    """

    processor: Any
    add_bos: bool = False
    _known: dict[Any, Prompt] = field(default_factory=dict, repr=False, compare=False)

    def prompt(self, text: str, images: Sequence[Image.Image]) -> Prompt:
        """The tokens of a rendered prompt. Raises what the processor raises."""
        key = (text, tuple(image.size for image in images))
        if key not in self._known:
            self._known[key] = self._read(text, images)
        return replace(self._known[key], images=tuple(map(content, images)))

    def answers(self, texts: Sequence[str]) -> list[tuple[int, ...]]:
        """The tokens of rendered answers, of all texts in one call."""
        if not texts:  # no processor takes an empty list
            return []
        # Special tokens: the chat template already wrote them (TRL does the same).
        encoding = self.processor(text=list(texts), padding=False, add_special_tokens=False)
        return [tuple(ids) for ids in encoding["input_ids"]]

    def _read(self, text: str, images: Sequence[Image.Image]) -> Prompt:
        first = begin_of_text(self.processor.tokenizer) if self.add_bos else None
        if first is not None:
            # As vLLM does it: without a special token before them, the first letters are the beginning of a text.
            text = text.removeprefix(first[0])
        # A list of lists: some processors take the images of a flat one for those of several texts.
        encoding = self.processor(images=[list(images)] if images else None, text=[text], add_special_tokens=False)
        ids = tuple(encoding["input_ids"][0])
        keys = {
            key: tuple(value[0])
            for key, value in encoding.items()
            if key.endswith("token_type_ids") and len(value[0]) == len(ids)
        }
        if first is not None:
            ids, keys = (first[1], *ids), {key: (0, *values) for key, values in keys.items()}
        grid = encoding.get("image_grid_thw")
        grids = tuple(tuple(map(int, item)) for item in grid) if grid is not None else ()
        return Prompt(ids, (), keys, grids)


def begin_of_text(tokenizer: Any) -> tuple[str, int] | None:
    """The begin-of-text token and its id if the tokenizer puts it before every text; None if it does not."""
    token: int | None = tokenizer.bos_token_id
    return (tokenizer.bos_token, token) if token is not None and token in tokenizer("").input_ids else None


def content(image: Image.Image) -> str:
    """A hash of the pixels."""
    return hashlib.blake2b(image.tobytes() + repr(image.size).encode()).hexdigest()[:32]
