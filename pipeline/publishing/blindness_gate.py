"""How well the published pairs can be told without their images: drawn while they are written, measured, kept, and held
against the recipe's gate (``pipeline.blindness``)."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from pipeline.base import columns
from pipeline.base.errors import PipelineError
from pipeline.blindness.in_words import meaning
from pipeline.blindness.measure_blindness import VERSION, Blindness, measure
from pipeline.blindness.pair_texts import Drawn, PairTexts, source_mark, writers
from pipeline.publishing import measured
from pipeline.running.store import Record, Run
from pipeline.sources.admission.prompt_id import IMAGES

_NAME = "blindness"


class BlindnessGate(PipelineError):
    """The pairs can be told without their images more often than the recipe allows; all before publishing is kept."""

    exit_code = 3


def watched(tables: Iterator[pa.Table], drawn: Drawn) -> Iterator[pa.Table]:
    """The tables of published pairs as they are, and into ``drawn`` what they say."""
    for table in tables:
        drawn.add(_entries(table))
        yield table


def keep(run: Run, drawn: Drawn, of: Record) -> Blindness:
    """Measure, and keep in the run what was measured; ``of`` is what is published."""
    blindness = measure(drawn.pairs, drawn.total)
    measured.write(run, _NAME, VERSION, blindness.as_json(), of)
    return blindness


def read(run: Run) -> Blindness | None:
    """What ``keep`` kept; None if the tables have changed since, or something else is published."""
    values = measured.read(run, _NAME, VERSION)
    return Blindness.of_json(values) if values is not None else None


def check(blindness: Blindness, most: float | None) -> None:
    """
    Raises:
        BlindnessGate: more than ``most``. What is not known stops nothing.
    """
    if most is not None and blindness.value is not None and blindness.value > most:
        raise BlindnessGate(
            f"blindness is {blindness.value:g}, beyond publish.max_blindness={most:g}. {meaning(blindness)}",
            "see which pairs these are in publish/blindness.json, or in the card without the bound, and what helps "
            "in docs/blindness.md; or move the bound",
        )


def warnings(run: Run) -> Iterator[str]:
    """For the console, where most of the pairs can be told."""
    blindness = read(run)
    if blindness is not None and blindness.high:
        yield f"{meaning(blindness)} The card says which pairs these are (docs/blindness.md)"


def _entries(table: pa.Table) -> Iterator[tuple[str, PairTexts]]:
    texts = [columns.items(columns.whole(table[side]), "content").to_pylist() for side in ("chosen", "rejected")]
    names = ("id", "source", "policy", "chosen_model", "rejected_model")
    others = [table[name].to_pylist() for name in names]
    for chosen, rejected, prompt, row_id, source, policy, *models in zip(
        *texts, table["prompt"].to_pylist(), *others, strict=True
    ):
        marks = {"source": source and source_mark(source), "policy": policy, "written by": writers(*models)}
        named = {kind: mark for kind, mark in marks.items() if mark is not None}
        # An id begins with what its images have in common.
        yield row_id, PairTexts(row_id[:IMAGES], prompt[-1]["content"], chosen, rejected, named)
