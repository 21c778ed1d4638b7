"""Pairs to a batch: the sequences of every pair in groups that read the same prompt, images listed once."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from training.config import Branch
from training.data.pairs import Pair, PairDataset
from training.data.tokens import Prompt
from training.forward.packing import Row

#: Which prompt a branch reads; branches of the same prompt share it.
_PROMPT: Mapping[Branch, str] = {
    "chosen": "prompt",
    "rejected": "prompt",
    "contrast": "prompt",
    "corrupted": "corrupted",
    "similar": "similar",
    "similar_swapped": "similar",
}
_ANSWER: Mapping[Branch, str] = {
    "chosen": "chosen_ids",
    "rejected": "rejected_ids",
    "contrast": "similar_ids",
    "corrupted": "chosen_ids",
    "similar": "similar_ids",
    "similar_swapped": "chosen_ids",
}


@dataclass(frozen=True, slots=True)
class PairBatch:
    """B pairs times the branches asked for: S = B * len(branches) sequences in G groups.

    - ``groups``: the sequences, those of one prompt together
    - ``prompts``: per group the prompt it reads
    - ``order`` int64 [branches, B]: which sequence (counted through the groups) a branch of a pair is
    - ``image_keys``: a name for each of the D distinct images of the batch
    - ``images``: per distinct image every image key of the processor (``pixel_values`` [1, C, H, W] for LLaVA), or
      None where the caller said that it knows the image's features already
    - ``group_images``: for each group the indices into ``images``, in the order of the placeholders
    """

    pairs: tuple[Pair, ...]
    branches: tuple[Branch, ...]
    groups: tuple[tuple[Row, ...], ...]
    prompts: tuple[Prompt, ...]
    order: Tensor
    image_keys: tuple[str, ...]
    images: tuple[Mapping[str, Tensor] | None, ...]
    group_images: tuple[tuple[int, ...], ...]


def answer(pair: Pair, branch: Branch) -> tuple[int, ...]:
    """The response tokens of a branch."""
    ids: tuple[int, ...] = getattr(pair, _ANSWER[branch])
    return ids


def collate(
    dataset: PairDataset,
    indices: Sequence[int],
    branches: Sequence[Branch],
    known_images: Container[str] = (),
    share_prefix: bool = True,
) -> PairBatch:
    """Read, corrupt and process the images of the given pairs and group their sequences.

    Each distinct image is decoded and processed once. Images named in ``known_images`` are not read at all. Without
    ``share_prefix`` every sequence is a group of its own.
    """
    pairs = [dataset.pairs[index] for index in indices]
    groups: list[tuple[Row, ...]] = []
    prompts: list[Prompt] = []
    group_images: list[tuple[int, ...]] = []
    loaders: dict[str, Callable[[], Any]] = {}
    order = torch.empty(len(branches), len(pairs), dtype=torch.long)
    sequence = 0
    for column, pair in enumerate(pairs):
        for which, members in branch_groups(branches, share_prefix):
            prompt: Prompt | None = getattr(pair, which)
            if prompt is None:
                raise ValueError(f"{pair.name} was prepared without what {members[0]} reads")
            groups.append(tuple(Row(prompt.ids + answer(pair, branch), len(prompt.ids)) for branch in members))
            prompts.append(prompt)
            for branch in members:
                order[branches.index(branch), column] = sequence
                sequence += 1
            readers = {"prompt": dataset.image, "corrupted": dataset.corrupted_image, "similar": dataset.similar_image}
            read = readers[which]
            whole = _shown_whole(dataset.processor, prompt)
            keys = [f"{key}|whole" if whole else key for key in prompt.images]
            for number, key in enumerate(keys):
                loaders.setdefault(key, partial(_read, dataset.processor, read, pair, number, whole))
            group_images.append(tuple(list(loaders).index(key) for key in keys))
    images = tuple(None if key in known_images else load() for key, load in loaders.items())
    return PairBatch(
        *(tuple(pairs), tuple(branches), tuple(groups), tuple(prompts), order),
        *(tuple(loaders), images, tuple(group_images)),
    )


def _shown_whole(processor: Any, prompt: Prompt) -> bool:
    """Whether the prompt's images are shown uncut because there are several of them (LLaVA-OneVision)."""
    return len(prompt.images) > 1 and "batch_num_images" in processor.model_input_names


def _read(
    processor: Any, read: Callable[[Pair, int], Any], pair: Pair, number: int, whole: bool
) -> Mapping[str, Tensor]:
    """What ``processor`` makes of one image: the keys that the model takes.

    The processor has settings of its own for its image processor, which must be the same here: InternVL's cuts images
    into tiles although its image processor by itself does not.
    """
    options = getattr(getattr(processor, "valid_processor_kwargs", None), "_defaults", {}).get("images_kwargs", {})
    image = read(pair, number)
    output = processor.image_processor([[image, image]] if whole else image, return_tensors="pt", **options)
    return {key: value[:1] if whole else value for key, value in output.items() if key in processor.model_input_names}


def branch_groups(branches: Sequence[Branch], share_prefix: bool) -> Iterator[tuple[str, tuple[Branch, ...]]]:
    """Which branches of a pair read one prompt: the prompt's field of ``Pair``, and the branches."""
    if not share_prefix:
        yield from ((_PROMPT[branch], (branch,)) for branch in branches)
        return
    for which in dict.fromkeys(_PROMPT[branch] for branch in branches):
        yield which, tuple(branch for branch in branches if _PROMPT[branch] == which)


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
