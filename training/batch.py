"""Pairs to a padded batch: one row per response, right-padded, images listed once."""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from training.data import Pair, PairDataset

#: ``corrupted`` is the chosen response next to the corrupted image.
Branch = Literal["chosen", "rejected", "corrupted"]


@dataclass(frozen=True, slots=True)
class PairBatch:
    """B pairs times the branches asked for: N = B * len(branches) rows, all pairs of one branch after another.

    - ``input_ids`` int64 [N, T]: prompt (image placeholders expanded) + response, then padding
    - ``attention_mask`` int64 [N, T]: 1 on tokens, 0 on padding
    - ``response_mask`` bool [N, T]: true on response tokens; what is scored
    - ``token_keys`` int64 [N, T] each: the processor's other per-token outputs, 0 on responses and padding
    - ``image_keys``: a name for each of the D distinct images of the batch
    - ``images``: per distinct image every image key of the processor (``pixel_values`` [1, C, H, W] for LLaVA), or
      None where the caller said that it knows the image's features already
    - ``row_images``: for each of the N rows the indices into ``images``, in the order of the placeholders
    """

    pairs: tuple[Pair, ...]
    branches: tuple[Branch, ...]
    input_ids: Tensor
    attention_mask: Tensor
    response_mask: Tensor
    token_keys: Mapping[str, Tensor]
    image_keys: tuple[str, ...]
    images: tuple[Mapping[str, Tensor] | None, ...]
    row_images: tuple[tuple[int, ...], ...]

    def to(self, device: torch.device) -> PairBatch:
        """The same batch on ``device``."""
        return replace(
            self,
            input_ids=self.input_ids.to(device),
            attention_mask=self.attention_mask.to(device),
            response_mask=self.response_mask.to(device),
            token_keys={key: value.to(device) for key, value in self.token_keys.items()},
            images=tuple(i and {key: value.to(device) for key, value in i.items()} for i in self.images),
        )


def collate(
    dataset: PairDataset, indices: Sequence[int], branches: Sequence[Branch], known_images: Container[str] = ()
) -> PairBatch:
    """Read, corrupt and process the images of the given pairs and pad their tokens.

    Each distinct image is decoded and processed once. Images named in ``known_images`` are not read at all.
    """
    pairs = [dataset.pairs[index] for index in indices]
    rows = [(pair, branch) for branch in branches for pair in pairs]
    responses = [pair.rejected_ids if branch == "rejected" else pair.chosen_ids for pair, branch in rows]
    lengths = [len(pair.prompt_ids) for pair, _ in rows]
    width = max(length + len(response) for length, response in zip(lengths, responses, strict=True))
    tokenizer = dataset.processor.tokenizer
    padding = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id

    input_ids = torch.full((len(rows), width), padding, dtype=torch.long)
    attention_mask = torch.zeros_like(input_ids)
    response_mask = torch.zeros_like(input_ids, dtype=torch.bool)
    token_keys = {key: torch.zeros_like(input_ids) for pair, _ in rows for key in pair.prompt_keys}
    loaders: dict[str, Callable[[], Any]] = {}
    row_images = []
    for i, (pair, branch) in enumerate(rows):
        end = lengths[i] + len(responses[i])
        input_ids[i, :end] = torch.tensor(pair.prompt_ids + responses[i])
        attention_mask[i, :end] = 1
        response_mask[i, lengths[i] : end] = True
        for key, values in pair.prompt_keys.items():
            token_keys[key][i, : lengths[i]] = torch.tensor(values)
        keys = [_image_key(pair, n, branch) for n in range(len(pair.images))]
        read = dataset.corrupted if branch == "corrupted" else dataset.image
        loaders.update({key: _bind(read, pair, n) for n, key in enumerate(keys) if key not in loaders})
        row_images.append(tuple(list(loaders).index(key) for key in keys))
    images = tuple(
        None if key in known_images else dict(dataset.processor.image_processor(load(), return_tensors="pt"))
        for key, load in loaders.items()
    )
    return PairBatch(
        pairs=tuple(pairs),
        branches=tuple(branches),
        input_ids=input_ids,
        attention_mask=attention_mask,
        response_mask=response_mask,
        token_keys=token_keys,
        image_keys=tuple(loaders),
        images=images,
        row_images=tuple(row_images),
    )


def _image_key(pair: Pair, index: int, branch: Branch) -> str:
    # The crop depends on the pair, so corrupted images are never shared between pairs.
    return pair.images[index] if branch != "corrupted" else f"{pair.images[index]}|{pair.id}|{index}"


def _bind(read: Callable[[Pair, int], Any], pair: Pair, index: int) -> Callable[[], Any]:
    return lambda: read(pair, index)


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
