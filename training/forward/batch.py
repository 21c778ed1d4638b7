"""Pairs to a batch: the sequences of every pair in groups that read the same prompt, images listed once."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from reward.forward.grouped import GroupedBatch
from reward.forward.packing import Row
from reward.forward.prompt import Prompt
from training.config import Branch
from training.config.objective import SIMILAR
from training.data.pairs import Pair, PairDataset
from training.forward.views import ImageView, Pixels, keys_of, read_views, views_of

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
class PairBatch(GroupedBatch):
    """B pairs times the branches asked for: S = B * len(branches) sequences, less those that pairs do not have.

    ``order`` int64 [branches, B]: which sequence (counted through the groups) a branch of a pair is, -1 for none.
    """

    pairs: tuple[Pair, ...]
    branches: tuple[Branch, ...]
    order: Tensor


def answer(pair: Pair, branch: Branch) -> tuple[int, ...]:
    """The response tokens of a branch."""
    ids: tuple[int, ...] = getattr(pair, _ANSWER[branch])
    return ids


def has(pair: Pair, branch: Branch) -> bool:
    """Whether there is such a sequence: a pair without a similar image lacks those of ``SIMILAR``."""
    return branch not in SIMILAR or pair.similar is not None


def collate(
    dataset: PairDataset,
    indices: Sequence[int],
    branches: Sequence[Branch],
    known_images: Container[str] = (),
    share_prefix: bool = True,
    read: Callable[[PairDataset, Mapping[str, ImageView]], Mapping[str, Pixels]] = read_views,
) -> PairBatch:
    """Read, corrupt and process the images of the given pairs and group their sequences.

    Each distinct image is processed once. Images named in ``known_images`` are not read at all. Without
    ``share_prefix`` every sequence is a group of its own. ``read`` is ``read_views`` or does the same.
    """
    pairs = [dataset.pairs[index] for index in indices]
    groups: list[tuple[Row, ...]] = []
    prompts: list[Prompt] = []
    order = torch.full((len(branches), len(pairs)), -1)
    sequence = 0
    for column, pair in enumerate(pairs):
        for which, members in branch_groups([branch for branch in branches if has(pair, branch)], share_prefix):
            prompt: Prompt | None = getattr(pair, which)
            if prompt is None:
                raise ValueError(f"{pair.name} was prepared without what {members[0]} reads")
            groups.append(tuple(Row(prompt.ids + answer(pair, branch), len(prompt.ids)) for branch in members))
            prompts.append(prompt)
            for branch in members:
                order[branches.index(branch), column] = sequence
                sequence += 1
    shown = views(dataset, indices, branches)
    places = {key: place for place, key in enumerate(shown)}
    group_images = tuple(tuple(places[key] for key in keys_of(dataset, prompt)) for prompt in prompts)
    images = read(dataset, {key: view for key, view in shown.items() if key not in known_images})
    return PairBatch(
        *(tuple(groups), tuple(prompts), tuple(shown), tuple(images.get(key) for key in shown), group_images),
        *(tuple(pairs), tuple(branches), order),
    )


def branch_groups(branches: Sequence[Branch], share_prefix: bool) -> Iterator[tuple[str, tuple[Branch, ...]]]:
    """Which branches of a pair read one prompt: the prompt's field of ``Pair``, and the branches."""
    if not share_prefix:
        yield from ((_PROMPT[branch], (branch,)) for branch in branches)
        return
    for which in dict.fromkeys(_PROMPT[branch] for branch in branches):
        yield which, tuple(branch for branch in branches if _PROMPT[branch] == which)


def views(dataset: PairDataset, indices: Sequence[int], branches: Sequence[Branch]) -> dict[str, ImageView]:
    """The distinct images that these branches of the pairs show, in the order in which they are first shown."""
    prompts = [which for which, _ in branch_groups(branches, share_prefix=True)]
    return views_of(dataset, [dataset.pairs[index] for index in indices], prompts)
