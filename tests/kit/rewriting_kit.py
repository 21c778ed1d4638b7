"""Descriptions of scenes with known faults, and facts to hold them against."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

from hypothesis import strategies as st

from pipeline.scenes import grammar, prompts
from pipeline.scenes.grammar import Item
from pipeline.scenes.models_build.train_reward_model import FAULTS
from pipeline.scenes.world import Scene, scene
from reward.text.lexicon import general
from reward.text.object_vocabulary import Vocabulary

#: A small world of photographs.
NAMES = ("sun", "dog", "cat", "cup", "boat", "man", "horse", "umbrella", "table", "bird", "tree")
THINGS = Vocabulary(
    "demo", "1", {form: name for name in NAMES for form in (name, "men" if name == "man" else f"{name}s")}
)
ENGLISH = general(THINGS)
indices = st.integers(0, 100_000)


def box(x: float, y: float, size: float = 0.2) -> list[float]:
    """Around a point."""
    return [x - size / 2, y - size / 2, x + size / 2, y + size / 2]


def thing(name: str, count: int | None = 1, *attributes: str, boxes: list[list[float]] | None = None) -> dict[str, Any]:
    return {"name": name, "count": count, "attributes": list(attributes), "boxes": boxes}


def facts(*objects: dict[str, Any]) -> dict[str, Any]:
    return {"objects": list(objects), "regions": None, "captions": None, "answer": None}


def true_text(image: Scene, rng: random.Random) -> str:
    """Names everything that is there, in a wording of the grammar."""
    return grammar.describe(grammar.reading_order(image), rng)


def faulty_items(image: Scene, rng: random.Random) -> list[Item]:
    """A few true items, in which up to three things are wrong: those of the reward model's training, and places."""
    items = grammar.reading_order(image)
    for _ in range(rng.randrange(4)):
        _, fault, _ = rng.choice(FAULTS)
        items = fault(list(items), image, rng) or items
    return [
        replace(item, cell=rng.randrange(9)) if item.cell is not None and rng.random() < 0.3 else item for item in items
    ]


def wording(items: list[Item], rng: random.Random) -> str:
    """Places are said seldom in the grammar; here every other text says one if it can."""
    wanted = rng.random() < 0.5
    texts = [grammar.describe(items, rng) for _ in range(10 if wanted else 1)]
    return next((text for text in texts if "In the " in text), texts[0])


def described(index: int) -> tuple[str, dict[str, Any], Scene]:
    """A description with or without faults, and the facts."""
    text, _, image = told_items(index)
    return text, prompts.facts(image), image


def told_items(index: int) -> tuple[str, list[Item], Scene]:
    """The same description, and what it was meant to say."""
    image, rng = scene(17, index), random.Random(f"described:{index}")
    items = faulty_items(image, rng)
    return wording(items, rng), items, image
