"""What was drawn, read back from its facts, and whether it is what the text said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.scenes.grammar import Item
from pipeline.scenes.parse import parse
from pipeline.scenes.vocabulary import THEMES
from pipeline.scenes.world import CELL, GRID, SIZE, Scene, Thing

Facts = Mapping[str, Any]


def scene(facts: Facts) -> Scene:
    """The inverse of ``pipeline.scenes.prompts.facts``: the theme is the one with most of the objects, and the
    background, of which facts say nothing, is white."""
    things = tuple(Thing(o["name"], o["attributes"][0], tuple(map(_place, o["boxes"]))) for o in facts["objects"])
    names = {thing.name for thing in things}
    theme = max(THEMES, key=lambda theme: len(names.intersection(THEMES[theme])))
    return Scene(theme, things, (255, 255, 255))


def faithful(items: Sequence[Item], facts: Facts) -> bool:
    """Whether the objects drawn are those of the text: none missing, none more, in the stated colours, numbers and
    places.

    >>> sun = {"name": "sun", "count": 1, "attributes": ["red"], "boxes": [[0.0, 0.0, 0.3, 0.3]]}
    >>> faithful([Item("sun", "red", 1)], {"objects": [sun]}), faithful([Item("sun", "blue", 1)], {"objects": [sun]})
    (True, False)
    """
    drawn = {thing.name: thing for thing in scene(facts).objects}
    return (
        len(drawn) == len(facts["objects"])
        and drawn.keys() == {item.name for item in items}
        and all(_fits(item, drawn[item.name]) for item in items)
    )


def shows(text: str, facts: Facts | None) -> bool | None:
    """Whether the image with these ``facts`` shows what ``text`` says; None where nobody knows."""
    if facts is None:
        return None
    try:
        return faithful(parse(text), facts)
    except ValueError:  # not a text of this world
        return None


def _fits(item: Item, thing: Thing) -> bool:
    return (item.colour, item.count) == (thing.colour, thing.count) and item.cell in (None, *thing.cells)


def _place(box: Sequence[float]) -> tuple[int, int, int, int]:
    # Tables hold boxes as float32.
    x, y, right = (round(value * SIZE) for value in box[:3])
    return y // CELL * GRID + x // CELL, x, y, right - x
