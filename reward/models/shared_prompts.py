"""Conversations about one prompt in one packed pass: images, vision tower and prompt run once for all the answers."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from reward.forward.grouped import GroupedBatch, read_image, shown_whole
from reward.forward.packing import Row, common_prefix
from reward.forward.prompt import Prompt
from reward.models.conversation import Conversation
from reward.models.conversation_reader import Reader

#: Conversations that are measured both ways before the rest is packed (``reward.forward.rounding``).
TRIED = 8


@dataclass(frozen=True)
class Answers:
    """Conversations that differ in their last message alone. ``places`` are where they stood, ``ids`` their tokens,
    ``prompt`` those that all have in common; ``images`` and ``pictures`` are encoded and decoded."""

    places: tuple[int, ...]
    ids: tuple[tuple[int, ...], ...]
    prompt: Prompt
    images: tuple[bytes, ...]
    pictures: tuple[Any, ...]

    @property
    def tokens(self) -> int:
        """Of all, with the common ones once."""
        common = len(self.prompt.ids)
        return common + sum(len(ids) - common for ids in self.ids)

    @property
    def longest(self) -> int:
        return max(map(len, self.ids))

    def rows(self, begins: Sequence[int], end: tuple[int, ...] = ()) -> tuple[Prompt, tuple[Row, ...]]:
        """What ``reward.forward.packing.pack`` takes, answers from ``begins`` on wanted and ``end`` behind each."""
        length = min(*begins, len(self.prompt.ids))
        keys = {key: values[:length] for key, values in self.prompt.keys.items()}
        prompt = replace(self.prompt, ids=self.prompt.ids[:length], keys=keys)
        return prompt, tuple(Row((*ids, *end), length) for ids in self.ids)

    def parts(self, conversations: int) -> Iterator[Answers]:
        """The same in parts that have no more tokens than ``conversations`` of the longest by themselves."""
        common, room, start = len(self.prompt.ids), conversations * self.longest, 0
        while start < len(self.places):
            end, tokens = start, common
            while end < len(self.places) and (end == start or tokens + len(self.ids[end]) - common <= room):
                tokens += len(self.ids[end]) - common
                end += 1
            yield replace(self, places=self.places[start:end], ids=self.ids[start:end])
            start = end


def measure(
    reader: Reader,
    conversations: Sequence[Conversation],
    batch_size: int,
    packed: Callable[[Sequence[Answers]], Mapping[int, float]],
    alone: Callable[[Sequence[int]], Mapping[int, float]],
    differ: Callable[[Mapping[int, float], Mapping[int, float]], str | None] | None,
) -> tuple[dict[int, float], str | None]:
    """A value for each conversation that fits into the model's context, by its place.

    Args:
        batch_size: a pass has no more tokens than so many conversations by themselves.
        packed: measures groups in one pass.
        alone: measures some conversations, each with a prompt and images of its own.
        differ: why two ways do not give the same values, None if they do. The first conversations are measured both
            ways; None: that is known already.

    Returns:
        the values, and why ``packed`` cannot be used, then not even for these.

    Raises:
        BadConversation: one cannot be read.
    """
    values: dict[int, float] = {}
    rest: list[int] = []
    for group in _passes(read_prompts(reader, conversations), batch_size, rest):
        try:
            measured = packed(group)
        except RuntimeError as error:
            if differ is None or isinstance(error, torch.OutOfMemoryError):  # which says nothing of packing
                raise
            reason = f"its forward failed with a packed row ({type(error).__name__}: {error})"
            return dict(alone(range(len(conversations)))), reason
        if differ is not None:
            tried = list(measured)[:TRIED]
            if (why := differ({place: measured[place] for place in tried}, alone(tried))) is not None:
                return dict(alone(range(len(conversations)))), why
            differ = None
        values |= measured
    return {**values, **alone(rest)}, None


def warn(scorer: str, reason: str) -> None:
    """Said once, as a model that can share and does not is slower than it need be."""
    warnings.warn(f"{scorer} reads prompt and images anew for every answer: {reason}", stacklevel=2)


def batch(reader: Reader, groups: Iterable[tuple[Answers, Prompt, tuple[Row, ...]]]) -> GroupedBatch:
    """The groups of one pass; every distinct image is read once."""
    listed = list(groups)
    found: dict[str, Any] = {}
    places = []
    for answers, prompt, _ in listed:
        whole = shown_whole(reader.processor, len(answers.pictures)) if answers.pictures else False
        keys = [f"{digest}|whole" if whole else digest for digest in prompt.images]
        for key, picture in zip(keys, answers.pictures, strict=True):
            if key not in found:
                found[key] = read_image(reader.processor, picture, whole)
        places.append(tuple(list(found).index(key) for key in keys))
    prompts, rows = tuple(prompt for _, prompt, _ in listed), tuple(rows for _, _, rows in listed)
    return GroupedBatch(rows, prompts, tuple(found), tuple(found.values()), tuple(places))


def read_prompts(reader: Reader, conversations: Sequence[Conversation]) -> Iterator[Answers | int]:
    """Those of one prompt together, prompts about the same images one after the other. A number is the place of a
    conversation whose tokens do not follow from those of another: it is to be read alone. Of those that do not fit into
    the model's context nothing is told.

    Raises:
        BadConversation: an image cannot be decoded, or the template refuses the messages.
    """
    by_images: dict[tuple[bytes, ...], dict[Any, list[int]]] = {}
    for place, conversation in enumerate(conversations):
        by_prompt = by_images.setdefault(conversation.images, {})
        by_prompt.setdefault(conversation.messages[:-1], []).append(place)
    for by_prompt in by_images.values():
        at = next(iter(by_prompt.values()))[0]
        pictures = reader.pictures(at, conversations[at])
        for places in by_prompt.values():
            yield from _read(reader, conversations, places, pictures)


def _read(
    reader: Reader, conversations: Sequence[Conversation], places: Sequence[int], pictures: list[Any]
) -> Iterator[Answers | int]:
    texts = [reader.render(place, conversations[place]) for place in places]
    read = reader.tensors([texts[0]], [pictures])
    whole = read["input_ids"][0].tolist()
    # In a text an image is one placeholder, and in what is read as many as it has vectors: all stand before where the
    # conversations part.
    plain = reader.tokenizer(texts, add_special_tokens=False)["input_ids"]
    common = common_prefix(plain)
    head = whole[: len(whole) - (len(plain[0]) - common)]
    if whole[len(head) :] != plain[0][common:]:
        yield from places
        return
    ids = {place: (*head, *of_text[common:]) for place, of_text in zip(places, plain, strict=True)}
    kept = [place for place in places if reader.positions is None or len(ids[place]) <= reader.positions]
    if not kept:
        return
    keys = {
        key: tuple(value[0, : len(head)].tolist())
        for key, value in read.items()
        if key.endswith("token_type_ids") and value.shape == (1, len(whole))
    }
    grids = tuple(tuple(grid) for grid in read["image_grid_thw"].tolist()) if "image_grid_thw" in read else ()
    images = conversations[places[0]].images if pictures else ()
    digests = tuple(hashlib.blake2b(image, digest_size=16).hexdigest() for image in images)
    prompt = Prompt(tuple(head), digests, keys, grids)
    yield Answers(tuple(kept), tuple(ids[place] for place in kept), prompt, images, tuple(pictures))


def _passes(read: Iterable[Answers | int], conversations: int, alone: list[int]) -> Iterator[list[Answers]]:
    """As many groups at a time as have together no more tokens than ``conversations`` of the longest by themselves.
    Numbers go to ``alone``."""
    waiting: list[Answers] = []
    for answers in read:
        if isinstance(answers, int):
            alone.append(answers)
            continue
        for part in answers.parts(conversations):
            longest = max([part.longest, *(group.longest for group in waiting)])
            if waiting and sum(group.tokens for group in [*waiting, part]) > conversations * longest:
                yield waiting
                waiting = []
            waiting.append(part)
    if waiting:
        yield waiting
