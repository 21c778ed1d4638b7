"""The words of the built-in world."""

from __future__ import annotations

from functools import cache

from pipeline.scenes.vocabulary import COLOURS, VOCABULARY
from pipeline.scenes.world import CELL_NAMES, GRID
from reward.text.lexicon import Lexicon


@cache
def scenes() -> Lexicon:
    """The built-in world's, exactly: eight colours, numbers to three, nine places that tile the image."""
    cells = {
        name: ("in", (cell % GRID / GRID, cell // GRID / GRID, (cell % GRID + 1) / GRID, (cell // GRID + 1) / GRID))
        for cell, name in enumerate(CELL_NAMES)
    }
    return Lexicon(
        name="scenes",
        own_version="1",
        vocabulary=VOCABULARY,
        attributes={colour: ("colour", colour) for colour in COLOURS},
        places=cells,
        margin=0.0,
        articles_count=True,
        most=3,
    )
