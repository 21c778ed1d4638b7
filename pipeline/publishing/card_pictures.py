"""The files beside a data card: its plots, the images of its examples, and the licence."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.publishing.card import EXAMPLES
from pipeline.publishing.card_header import licence_of
from pipeline.publishing.findings import Findings
from pipeline.publishing.licences import licence_text
from pipeline.publishing.page_images import reduce_picture
from pipeline.running.prompt_rows import by_shard
from pipeline.running.store import Run

FOLDER = "pictures"
LICENCE = "LICENSE"


def files_beside(run: Run, findings: Findings, recipe: Mapping[str, Any]) -> dict[str, bytes]:
    """Name -> content: ``pictures/scores.png``, ``pictures/lengths.png``, ``pictures/example-2-1.png`` (the first image
    of the second example) and ``LICENSE``, as far as there is something to show or to say. The same run gives the same
    bytes. ``recipe`` is plain data."""
    drawn = {f"{FOLDER}/{name}": data for name, data in _pictures(run, findings)}
    licence = licence_of(recipe)
    return drawn | ({LICENCE: licence_text(**licence).encode()} if licence is not None else {})


def _pictures(run: Run, findings: Findings) -> Iterator[tuple[str, bytes]]:
    from pipeline.publishing import plots  # with it comes matplotlib

    scores = {name: (spread.chosen, spread.rejected) for name, spread in findings.scores.items() if len(spread.chosen)}
    if scores:
        yield "scores.png", plots.png(plots.histograms(scores))
    words = findings.lengths
    if len(words.difference):
        yield "lengths.png", plots.png(plots.lengths(words.chosen, words.rejected, words.difference))
    examples = findings.some(EXAMPLES)
    rows = by_shard(run, examples)
    for number, example in enumerate(examples, 1):
        for place, image in enumerate(rows[example.shard][example.id].pictures(), 1):
            data, kind = reduce_picture(image)
            yield f"example-{number}-{place}.{kind}", data
