"""What is in a scene: objects with colour, count and place, drawn around a theme. Deterministic from a seed."""

from __future__ import annotations

import random
from dataclasses import dataclass

from pipeline.scenes.vocabulary import COLOURS, OBJECTS, THEMES

#: Side of the picture in pixels, and of one of its 3 x 3 cells; an object lies within one cell.
SIZE = 96
CELL = 32
GRID = 3

_COLOUR_NAMES = tuple(COLOURS)
_THEME_NAMES = tuple(THEMES)
#: Light, so that every colour of an object stands out against it; independent of the theme, so that the picture's
#: background does not tell what "should" be there.
BACKGROUNDS = ((250, 250, 246), (232, 242, 252), (250, 238, 226), (234, 246, 232), (244, 236, 250), (252, 248, 224))
_TYPICAL = 0.85  # share of a scene's objects that belong to its theme


@dataclass(frozen=True, slots=True)
class Thing:
    """One kind of object in a scene; all its instances share the colour.

    ``places`` holds one ``(cell, x, y, size)`` per instance: the cell 0..8 in reading order, the top left corner and
    the side of the square it is drawn in, in pixels.
    """

    name: str
    colour: str
    places: tuple[tuple[int, int, int, int], ...]

    @property
    def count(self) -> int:
        return len(self.places)

    @property
    def cells(self) -> tuple[int, ...]:
        return tuple(place[0] for place in self.places)


@dataclass(frozen=True, slots=True)
class Scene:
    """A theme and two to five kinds of objects, at most nine instances in all, in reading order of their first cell."""

    theme: str
    objects: tuple[Thing, ...]
    background: tuple[int, int, int]

    @property
    def names(self) -> frozenset[str]:
        return frozenset(thing.name for thing in self.objects)


def scene(seed: int, index: int) -> Scene:
    """The ``index``-th scene of stream ``seed``; streams of different seeds are independent.

    >>> scene(0, 0) == scene(0, 0), scene(0, 0) == scene(0, 1)
    (True, False)
    """
    rng = random.Random(f"scene:{seed}:{index}")
    theme = rng.choice(_THEME_NAMES)
    names: list[str] = []
    for _ in range(rng.choices((2, 3, 4, 5), (20, 40, 30, 10))[0]):
        pool = THEMES[theme] if rng.random() < _TYPICAL else OBJECTS
        free = [name for name in pool if name not in names]
        names.append(rng.choice(free or OBJECTS))
    names = list(dict.fromkeys(names))
    cells = rng.sample(range(GRID * GRID), GRID * GRID)
    counts = [1] * len(names)
    for i in range(len(names)):
        extra = rng.choices((0, 1, 2), (65, 25, 10))[0]
        counts[i] += min(extra, len(cells) - sum(counts))
    things = []
    for name, count in zip(names, counts, strict=True):
        mine, cells = sorted(cells[:count]), cells[count:]
        things.append(Thing(name, rng.choice(_COLOUR_NAMES), tuple(place(cell, rng) for cell in mine)))
    things.sort(key=lambda thing: thing.cells[0])
    return Scene(theme, tuple(things), rng.choice(BACKGROUNDS))


def place(cell: int, rng: random.Random) -> tuple[int, int, int, int]:
    """Somewhere in the cell: one of a ``Thing``'s ``places``."""
    size = rng.choice((26, 28, 30))
    room = CELL - size
    row, column = divmod(cell, GRID)
    return cell, column * CELL + int(rng.random() * (room + 1)), row * CELL + int(rng.random() * (room + 1)), size


def left_of(a: Thing, b: Thing) -> bool:
    """Every instance of ``a`` lies in a column left of every instance of ``b``."""
    return max(cell % GRID for cell in a.cells) < min(cell % GRID for cell in b.cells)


def above(a: Thing, b: Thing) -> bool:
    """Every instance of ``a`` lies in a row above every instance of ``b``."""
    return max(cell // GRID for cell in a.cells) < min(cell // GRID for cell in b.cells)


#: Names of the nine cells in reading order.
CELL_NAMES = (
    "top left corner",
    "top middle",
    "top right corner",
    "left middle",
    "centre",
    "right middle",
    "bottom left corner",
    "bottom middle",
    "bottom right corner",
)
