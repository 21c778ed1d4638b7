"""Some of the pairs of each prompt instead of all: HA-DPO's draw (arXiv 2311.16839).

Its data has several wordings of the right and of the wrong description of an image. The released code draws one of
each, and puts descriptions twice among the yes/no questions, so that a prompt counts by what it asks and not by how
many wordings it has.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Hashable, Iterator, Sequence
from typing import NamedTuple

from training.config import Draw

#: Of fewer words an answer describes nothing.
FEWEST_WORDS = 5


class Drawable(NamedTuple):
    """A pair: equal ``prompt`` for pairs of one prompt (its images included), an ``id`` that no other pair of the
    prompt has, and the chosen ``answer``."""

    prompt: Hashable
    id: str
    answer: str


def few(ids: Sequence[str], limit: int, seed: int) -> list[int]:
    """Indices of at most ``limit`` pairs, in their order; those for a smaller limit are among those for a larger one.

    >>> few(["a", "b", "c"], 2, seed=0), few(["a", "b", "c"], 1, seed=0)
    ([0, 2], [0])
    """
    by_chance = [(hashlib.sha256(f"{seed}:{pair_id}".encode()).digest(), index) for index, pair_id in enumerate(ids)]
    return sorted(index for _, index in sorted(by_chance)[:limit])


def draw(pairs: Sequence[Drawable], rule: Draw, seed: int) -> list[int]:
    """Indices of the pairs to train on, round by round; within a round by the first pair of each prompt.

    A pair of a prompt comes again only when all of its pairs have come. Which come first depends on ``seed`` and the
    ids of the prompt's pairs, not on their order or on other prompts.

    >>> pairs = [Drawable("q", "a", "No."), Drawable("d", "b", "There is a red sun."), Drawable("q", "c", "No.")]
    >>> len(draw(pairs, Draw(rounds=2, descriptions=2), seed=0))
    6
    """
    groups: dict[Hashable, list[int]] = {}
    for index, pair in enumerate(pairs):
        groups.setdefault(pair.prompt, []).append(index)
    orders = [(_order(pairs, group, seed), _times(pairs, group, rule)) for group in groups.values()]
    return [next(order) for _ in range(rule.rounds) for order, times in orders for _ in range(times)]


def describes(answer: str) -> bool:
    """Whether an answer is a description: of some words, and no yes or no.

    >>> describes("There is a red sun."), describes("No, there is no horse in the image."), describes("Red.")
    (True, False, False)
    """
    words = answer.split()
    return len(words) >= FEWEST_WORDS and words[0].strip(".,!:;").lower() not in ("yes", "no")


def _times(pairs: Sequence[Drawable], group: Sequence[int], rule: Draw) -> int:
    return rule.descriptions if any(describes(pairs[index].answer) for index in group) else 1


def _order(pairs: Sequence[Drawable], group: Sequence[int], seed: int) -> Iterator[int]:
    """All pairs of a prompt once in one order, then once in another, and so on."""
    members = sorted(group, key=lambda index: pairs[index].id)
    rng = random.Random(f"draw:{seed}:{' '.join(pairs[index].id for index in members)}")
    while True:
        yield from rng.sample(members, len(members))
