"""The words of the world: descriptions of one to four sentences and yes/no questions with exact answers."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from pipeline.scenes.vocabulary import COLOURS, OBJECTS, THEMES, article, plural
from pipeline.scenes.world import CELL_NAMES, Scene, Thing, above, left_of

DESCRIBE = ("Describe the image.", "What is in the picture?", "What can you see in this image?")

_NUMBERS = {1: "one", 2: "two", 3: "three"}
_COLOUR_NAMES = tuple(COLOURS)


@dataclass(frozen=True, slots=True)
class Item:
    """What a description says of one kind of object; ``cell`` is None where no place is claimed."""

    name: str
    colour: str
    count: int
    cell: int | None = None

    @property
    def phrase(self) -> str:
        """
        >>> Item("umbrella", "orange", 1).phrase, Item("mouse", "red", 2).phrase
        ('an orange umbrella', 'two red mice')
        """
        if self.count == 1:
            return f"{article(self.colour)} {self.colour} {self.name}"
        return f"{_NUMBERS[self.count]} {self.colour} {plural(self.name)}"

    @property
    def verb(self) -> str:
        return "is" if self.count == 1 else "are"


def item(thing: Thing) -> Item:
    return Item(thing.name, thing.colour, thing.count, thing.cells[0] if thing.count == 1 else None)


def describe(items: Sequence[Item], rng: random.Random) -> str:
    """A description naming every item once, in the given order, in one to four sentences.

    >>> describe([Item("sun", "red", 1)], random.Random(1))
    'There is a red sun.'
    """
    head = min(len(items), rng.choice((1, 2, 2, 3)))
    sentences = [_opening(items[:head], rng)]
    rest = list(items[head:])
    while rest:
        take = len(rest) if len(sentences) == 3 else min(len(rest), rng.choice((1, 1, 2)))
        sentences.append(_further_sentence(rest[:take], rng))
        rest = rest[take:]
    return " ".join(sentences)


def _list_of(items: Sequence[Item]) -> str:
    phrases = [entry.phrase for entry in items]
    return phrases[0] if len(phrases) == 1 else ", ".join(phrases[:-1]) + " and " + phrases[-1]


def _opening(items: Sequence[Item], rng: random.Random) -> str:
    form = rng.random()
    if form < 0.4:
        return f"The image shows {_list_of(items)}."
    if form < 0.8:
        return f"There {items[0].verb} {_list_of(items)}."
    return f"In this picture you can see {_list_of(items)}."


def _further_sentence(items: Sequence[Item], rng: random.Random) -> str:
    form = rng.random()
    cell = items[0].cell
    if len(items) == 1 and cell is not None and form < 0.35:
        return f"In the {CELL_NAMES[cell]} {items[0].verb} {items[0].phrase}."
    if form < 0.7:
        return f"There {items[0].verb} also {_list_of(items)}."
    return f"You can also see {_list_of(items)}."


def reading_order(scene: Scene) -> list[Item]:
    """True items in reading order of their first cell."""
    return [item(thing) for thing in scene.objects]


def imagine(scene: Scene, rng: random.Random, typical: float = 1.0) -> Item | None:
    """An item that is not there: of the scene's theme with probability ``typical``, else any. None if none is left."""
    names = scene.names
    pool = [name for name in (THEMES[scene.theme] if rng.random() < typical else OBJECTS) if name not in names]
    return Item(rng.choice(pool), rng.choice(_COLOUR_NAMES), 1) if pool else None


@dataclass(frozen=True, slots=True)
class Question:
    """``kind``: existence, attribute, count or relation. ``typical``: an absent object that the theme would suggest."""

    text: str
    answer: str
    kind: str
    typical: bool = False


def existence(name: str) -> str:
    return f"Is there {article(name)} {name} in the image?"


def question(scene: Scene, kind: str, rng: random.Random) -> Question:
    """A yes/no question with its exact answer; yes and no are equally likely."""
    truth = rng.random() < 0.5
    answer = "yes" if truth else "no"
    thing = rng.choice(scene.objects)
    if kind == "existence":
        if truth:
            return Question(existence(thing.name), answer, kind)
        absent = imagine(scene, rng, typical=0.5)
        if absent is None:
            return Question(existence(thing.name), "yes", kind)
        return Question(existence(absent.name), answer, kind, absent.name in THEMES[scene.theme])
    if kind == "attribute":
        colour = thing.colour if truth else rng.choice([c for c in _COLOUR_NAMES if c != thing.colour])
        return Question(f"Is there {Item(thing.name, colour, 1).phrase} in the image?", answer, kind)
    if kind == "count":
        count = thing.count if truth else rng.choice([n for n in (1, 2, 3) if n != thing.count])
        noun = thing.name if count == 1 else plural(thing.name)
        verb = "Is" if count == 1 else "Are"
        return Question(f"{verb} there exactly {_NUMBERS[count]} {noun} in the image?", answer, kind)
    if kind == "relation":
        return _relation(scene, thing, truth, rng)
    raise ValueError(f"unknown kind of question {kind!r}; one of existence, attribute, count, relation")


def _relation(scene: Scene, thing: Thing, truth: bool, rng: random.Random) -> Question:
    """Asked only where one of the two orders clearly holds; falls back to existence where no pair of kinds has one."""
    tests = (("to the left of", left_of), ("above", above))
    clear = [
        (words, a, b)
        for words, holds in tests
        for a in scene.objects
        for b in scene.objects
        if a is not b and holds(a, b)
    ]
    if not clear:
        return question(scene, "existence", rng)
    words, a, b = rng.choice(clear)
    if not truth:
        a, b = b, a
    verb = "Is" if a.count == 1 else "Are"
    first = a.name if a.count == 1 else plural(a.name)
    second = b.name if b.count == 1 else plural(b.name)
    return Question(f"{verb} the {first} {words} the {second}?", "yes" if truth else "no", "relation")


def words() -> list[str]:
    """Every text the grammar can say, in pieces that together hold every word form, for building a tokenizer."""
    pieces = [*DESCRIBE, "Yes", "No", "Yes.", "No.", "yes", "no"]
    pieces += [form for name in OBJECTS for form in (f" {name}", f" {plural(name)}")]
    pieces += [f" {colour}" for colour in _COLOUR_NAMES] + [f" {number}" for number in _NUMBERS.values()]
    pieces += [f" {name}" for name in CELL_NAMES]
    pieces += [
        "The image shows a an, and.",
        "There is There are also",
        "In this picture you can see",
        "You can also see",
    ]
    pieces += [
        "In the",
        "Is there exactly in the image?",
        "Are there exactly",
        "Is the to the left of the",
        "Are the above the?",
    ]
    pieces += [" below to the right of in of on with at it they this that not no yes"]
    return pieces
