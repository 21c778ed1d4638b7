"""The images of a forward pass: which they are, and what the processor makes of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor

from reward.forward.grouped import read_image, shown_whole
from reward.forward.prompt import Prompt
from training.data.pairs import Pair, PairDataset

#: What the processor makes of an image: the model's inputs by name.
Pixels = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class ImageView:
    """An image as a prompt shows it: the ``number``-th of ``which`` (``prompt``, ``corrupted``, ``similar``) of a pair.
    ``original`` names the picture that is decoded for it: views of one name are made of the same pixels."""

    pair: Pair
    which: str
    number: int
    whole: bool
    original: str


def keys_of(dataset: PairDataset, prompt: Prompt) -> list[str]:
    """The names of a prompt's images; one that is shown whole is another to the model than the same cut into tiles."""
    whole = shown_whole(dataset.processor, len(prompt.images))
    return [f"{image}|whole" if whole else image for image in prompt.images]


def views_of(dataset: PairDataset, pairs: Sequence[Pair], prompts: Sequence[str]) -> dict[str, ImageView]:
    """By name, the distinct images of these ``prompts`` of the pairs, in the order in which they are first shown."""
    drawn = dataset.corruption.kind not in ("other", "data")  # from the pair's own image
    result: dict[str, ImageView] = {}
    for pair in pairs:
        for which in prompts:
            prompt: Prompt | None = getattr(pair, which)
            if prompt is None:  # a row of text alone
                continue
            whole = shown_whole(dataset.processor, len(prompt.images))
            for number, key in enumerate(keys_of(dataset, prompt)):
                original = pair.prompt.images[number] if which == "corrupted" and drawn else prompt.images[number]
                result.setdefault(key, ImageView(pair, which, number, whole, original))
    return result


def read_views(
    dataset: PairDataset, views: Mapping[str, ImageView], decode_once: bool = True
) -> dict[str, Mapping[str, Tensor]]:
    """What the processor makes of each. An original is decoded once for all views of it, which changes nothing but the
    time; ``decode_once=False`` is the naive way.

    Raises:
        DataError: an image cannot be read.
    """
    result = {}
    for names in by_original(views):
        picture: Image.Image | None = None
        for key in names:
            view = views[key]
            if view.which == "similar":
                image = dataset.similar_image(view.pair, view.number)
            elif view.which == "corrupted":
                image = dataset.corrupted_image(view.pair, view.number, picture)
            else:
                image = picture or dataset.image(view.pair, view.number)
            if decode_once and view.which == "prompt":
                picture = image
            result[key] = read_image(dataset.processor, image, view.whole)
    return result


def by_original(views: Mapping[str, ImageView]) -> Iterator[list[str]]:
    """The names of the views of each original, the original itself before what is drawn from it."""
    groups: dict[str, list[str]] = {}
    for key, view in views.items():
        groups.setdefault(view.original, []).append(key)
    for names in groups.values():
        yield sorted(names, key=lambda key: views[key].which != "prompt")
