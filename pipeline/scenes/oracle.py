"""Exact faults of descriptions of the built-in world, found in another way than ``reward.text.fact_findings`` does.

A second opinion to measure the first by: it shares no code with it. Words are read one by one from left to right by a
small machine; sentences end at full stops; positions come from splitting the text, not from regular expressions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3}
_PLACE_WORDS = frozenset({"the", "top", "bottom", "left", "right", "middle", "centre", "corner"})
_COLUMNS, _ROWS = ("left", "middle", "right"), ("top", "middle", "bottom")


@dataclass(frozen=True, slots=True, order=True)
class Fault:
    """``kind`` is object, attribute, count or relation; ``start`` is the character at which the wrong words begin."""

    start: int
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Said:
    """One mention: (character, value) of what it consists of. ``cell`` is (column, row), 0 to 2 each."""

    name: str
    begin: int
    colour: tuple[int, str] | None
    count: tuple[int, int] | None
    cell: tuple[int, tuple[int, int]] | None


def faults(text: str, facts: Mapping[str, Any]) -> frozenset[Fault]:
    """What in a description is not true of the scene with these facts.

    >>> facts = {"objects": [{"name": "sun", "count": 1, "attributes": ["red"], "boxes": [[0, 0, 0.3, 0.3]]}]}
    >>> sorted(fault.kind for fault in faults("There is a blue sun. In the centre is a cup.", facts))
    ['attribute', 'object']
    """
    things = {thing["name"]: thing for thing in facts["objects"]}
    return frozenset(fault for mention in mentions(text) for fault in _faults(mention, things.get(mention.name)))


def mentions(text: str) -> Iterator[Said]:
    """Every mention of an object of the world, in order."""
    names = _names()
    cell: tuple[int, tuple[int, int]] | None = None
    place: list[tuple[int, str]] | None = None  # the words of a place while it is read
    first: int | None = None
    colour: tuple[int, str] | None = None
    count: tuple[int, int] | None = None
    for start, word, stop in _words(text):
        if place is not None and word in _PLACE_WORDS:
            place += [(start, word)] if word != "the" else []
        elif place and word in ("is", "are"):
            cell, place = _cell(place), None
        elif word == "in":
            place = []
        elif word in _NUMBERS:
            first, count, colour = start, (start, _NUMBERS[word]), None
        elif word in _colours():
            first = start if first is None else first
            colour = (start, word)
        elif word in names:
            yield Said(names[word], start if first is None else first, colour, count, cell)
            first = colour = count = None
        else:
            place = first = colour = count = None
        if stop:
            cell = place = first = colour = count = None


def _faults(mention: Said, thing: Mapping[str, Any] | None) -> Iterator[Fault]:
    if thing is None:
        yield Fault(mention.begin, "object", mention.name)
        return
    if mention.colour and mention.colour[1] != thing["attributes"][0]:
        yield Fault(mention.colour[0], "attribute", mention.name)
    number = mention.count[1] if mention.count else 1
    here = [box for box in thing["boxes"] if mention.cell and _cell_of(box) == mention.cell[1]]
    if mention.cell and len(here) < number:
        yield Fault(mention.cell[0], "relation", mention.name)
    in_place = mention.cell is not None and len(here) >= number and number == len(here)
    if mention.count and number != thing["count"] and not in_place:
        yield Fault(mention.count[0], "count", mention.name)


def _words(text: str) -> Iterator[tuple[int, str, bool]]:
    """(character, lower-case word, whether a full stop follows)."""
    at = 0
    for piece in text.split(" "):
        word = piece.strip(".,")
        if word:
            yield at + piece.index(word), word.lower(), piece.endswith(".")
        at += len(piece) + 1


def _cell(words: list[tuple[int, str]]) -> tuple[int, tuple[int, int]] | None:
    """Of "top left corner", "right middle", "centre" and so on; None for any other words."""
    names = [word for _, word in words]
    if names == ["centre"]:
        return words[0][0], (1, 1)
    if len(names) < 2 or names[2:] not in ([], ["corner"]):
        return None
    first, other = names[:2]
    if first in ("left", "right") and other == "middle":
        return words[0][0], (_COLUMNS.index(first), 1)
    if first in ("top", "bottom") and other in _COLUMNS:
        return words[0][0], (_COLUMNS.index(other), _ROWS.index(first))
    return None


def _cell_of(box: list[float]) -> tuple[int, int]:
    return int((box[0] + box[2]) * 1.5), int((box[1] + box[3]) * 1.5)


def _names() -> dict[str, str]:
    from pipeline.scenes.vocabulary import OBJECTS, plural

    return {form: name for name in OBJECTS for form in (name, plural(name))}


def _colours() -> frozenset[str]:
    from pipeline.scenes.vocabulary import COLOURS

    return frozenset(COLOURS)
