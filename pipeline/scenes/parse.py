"""Descriptions of the world taken apart: the inverse of ``pipeline.scenes.grammar.describe``."""

from __future__ import annotations

import re

from pipeline.scenes.grammar import Item
from pipeline.scenes.vocabulary import COLOURS, OBJECTS, article, plural
from pipeline.scenes.world import CELL_NAMES

_NUMBERS = {"a": 1, "an": 1, "two": 2, "three": 3}
_NAMES = {form: (name, many) for name in OBJECTS for form, many in ((name, False), (plural(name), True))}
_NUMBER, _COLOUR = "|".join(_NUMBERS), "|".join(COLOURS)
_NAME = "|".join(sorted(_NAMES, key=len, reverse=True))
_PHRASE = rf"(?:{_NUMBER}) (?:{_COLOUR}) (?:{_NAME})"
_PARTS = re.compile(rf"({_NUMBER}) ({_COLOUR}) ({_NAME})")
_LIST = rf"{_PHRASE}(?:, {_PHRASE})*(?: and {_PHRASE})?"
_SENTENCE = re.compile(
    rf"(?:The image shows|There (?:is|are)(?: also)?|In this picture you can see|You can also see) (?P<many>{_LIST})\."
    rf"|In the (?P<cell>{'|'.join(CELL_NAMES)}) (?:is|are) (?P<one>{_LIST})\."
)


def parse(text: str) -> list[Item]:
    """The items of a description, in order. A place stays with the item only where the text says it.

    >>> parse("There is a red sun and two blue mice. In the centre is an orange cup.")[1:]
    [Item(name='mouse', colour='blue', count=2, cell=None), Item(name='cup', colour='orange', count=1, cell=4)]

    Raises:
        ValueError: the text says something that the grammar cannot say, or names an object twice.
    """
    items: list[Item] = []
    for sentence in re.findall(r"[^.]*\.|[^.]+$", text.strip()):
        match = _SENTENCE.fullmatch(sentence.strip())
        if match is None:
            raise ValueError(f"not a sentence of the scenes' grammar: {sentence.strip()!r}")
        items += _items(match["many"] or match["one"], CELL_NAMES.index(match["cell"]) if match["cell"] else None)
    if not items:
        raise ValueError("the text names no object")
    twice = sorted({item.name for item in items if sum(item.name == other.name for other in items) > 1})
    if twice:
        raise ValueError(f"the text names {twice[0]!r} twice; say its number instead")
    return items


def _items(phrases: str, cell: int | None) -> list[Item]:
    items = []
    for match in _PARTS.finditer(phrases):
        number, colour, form = match.groups()
        name, many = _NAMES[form]
        count = _NUMBERS[number]
        if many != (count > 1) or (count == 1 and number != article(colour)):
            raise ValueError(f"{match[0]!r} is not how the scenes' grammar counts")
        items.append(Item(name, colour, count, cell))
    if cell is not None and (len(items) > 1 or items[0].count > 1):
        raise ValueError(f"one place cannot hold {phrases!r}")
    return items
