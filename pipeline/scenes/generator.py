"""An "image generator" of the world: draws what a text says, with faults at known rates.

It stands where a diffusion model stands in a run on photographs. Unlike with one, what was drawn is known exactly.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from pipeline.engines.painter import Picture, Wish
from pipeline.scenes import prompts, raster
from pipeline.scenes.grammar import Item
from pipeline.scenes.parse import parse
from pipeline.scenes.vocabulary import COLOURS, OBJECTS, THEMES
from pipeline.scenes.world import BACKGROUNDS, GRID, Scene, Thing, place

_CELLS = GRID * GRID
#: Share of the objects nobody asked for that go along with those of the text, as with large models.
_TYPICAL = 0.85


@dataclass(frozen=True)
class ScenePainter:
    """Each object of a text is left out with probability ``drop``, else exchanged for another kind with probability
    ``swap``; with probability ``add`` there is one more. One object is left in any case. Guidance changes nothing."""

    drop: float = 0.0
    swap: float = 0.0
    add: float = 0.0

    def paint(self, wishes: Sequence[Wish]) -> Iterator[Picture]:
        """A picture may fail with not_in_grammar or too_many_objects; its text cannot be drawn, whatever the seed."""
        return map(self._paint, wishes)

    def _paint(self, wish: Wish) -> Picture:
        try:
            items = parse(wish.text)
        except ValueError as error:
            return Picture(error_type="not_in_grammar", error=str(error))
        if (count := sum(item.count for item in items)) > _CELLS:
            return Picture(error_type="too_many_objects", error=f"{count} objects, and a scene has {_CELLS} places")
        rng = random.Random(wish.seed)
        scene = arrange(self.spoil(items, rng), rng)
        return Picture(raster.png(scene), prompts.facts(scene))

    def spoil(self, items: Sequence[Item], rng: random.Random) -> list[Item]:
        """What is drawn instead of ``items``. Every chance is drawn in any case, so that a rate decides about its own
        faults only."""
        fates = [rng.random() for _ in items]
        spared, more, other = rng.randrange(len(items)), rng.random(), random.Random(rng.random())
        dropped = {at for at, fate in enumerate(fates) if fate < self.drop}
        if len(dropped) == len(items):
            dropped.remove(spared)
        names = [item.name for item in items]
        drawn = []
        for at, (item, fate) in enumerate(zip(items, fates, strict=True)):
            if at in dropped:
                continue
            if self.drop <= fate < self.drop + self.swap:
                item = replace(item, name=_another(names, other))
                names.append(item.name)
            drawn.append(item)
        if more < self.add and sum(item.count for item in drawn) < _CELLS:
            drawn.append(Item(_another(names, other), other.choice(tuple(COLOURS)), 1))
        return drawn


def arrange(items: Sequence[Item], rng: random.Random) -> Scene:
    """A scene of exactly these items, each where the text says, or in any cell that is free. Of two that are to stand
    in one cell, the second stands elsewhere."""
    cells: dict[int, list[int]] = {}
    for at, item in enumerate(items):
        if item.cell is not None and [item.cell] not in cells.values():
            cells[at] = [item.cell]
    taken = {cell for places in cells.values() for cell in places}
    free = [cell for cell in rng.sample(range(_CELLS), _CELLS) if cell not in taken]
    things = []
    for at, item in enumerate(items):
        placed = cells.get(at)
        if placed is None:
            placed, free = sorted(free[: item.count]), free[item.count :]
        things.append(Thing(item.name, item.colour, tuple(place(cell, rng) for cell in placed)))
    things.sort(key=lambda thing: thing.cells[0])
    return Scene(_theme([item.name for item in items]), tuple(things), rng.choice(BACKGROUNDS))


def _theme(names: Sequence[str]) -> str:
    """The theme most of the objects belong to."""
    counts = Counter(theme for theme, members in THEMES.items() for name in names if name in members)
    return counts.most_common(1)[0][0]


def _another(names: Sequence[str], rng: random.Random) -> str:
    """An object that is not among ``names``, mostly one that goes along with them."""
    same_theme = [name for name in THEMES[_theme(names)] if name not in names]
    return rng.choice(
        same_theme if same_theme and rng.random() < _TYPICAL else [name for name in OBJECTS if name not in names]
    )
