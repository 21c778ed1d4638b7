"""How many prompts a source has at most, where that is quick to tell."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from pipeline.base.files import is_local, locate
from pipeline.sources.config import PluggedSource, ReadSource, ScenesSource
from pipeline.sources.imagine.config import Texts
from pipeline.sources.imagine.stage import texts
from pipeline.sources.readers import protocol as sources

#: Seconds after which nobody waits for the end of a file.
PATIENCE = 5.0
#: Entries between two looks at the clock.
_LOOK = 256
#: Readers that go through text alone: others would open, or fetch, what they read.
_QUICK = ("jsonl", "csv", "parquet", "folder", "coco", "visual_genome", "llava", "pds")


def most_entries(spec: ScenesSource | ReadSource | Texts) -> int | None:
    """Prompts (or texts) before any is left out; None where it would take long to know.

    Raises:
        InputError: a file cannot be read.
    """
    if isinstance(spec, Texts):
        quick = spec.path is None or is_local(locate(spec.path))
        return spec.scenes or (_count(texts(spec, 0)) if quick else None)
    if isinstance(spec, ScenesSource):
        drawn = spec.scenes * (1 + spec.questions_per_scene)
        return drawn if spec.limit is None else min(drawn, spec.limit)
    if isinstance(spec, PluggedSource) or spec.kind not in _QUICK or not is_local(locate(spec.path)):
        return spec.limit
    counted = _count(sources.entries(spec))
    return spec.limit if counted is None else counted


def _count(entries: Iterator[Any]) -> int | None:
    until, number = time.monotonic() + PATIENCE, 0
    for number, _ in enumerate(entries, 1):
        if number % _LOOK == 0 and time.monotonic() > until:
            return None
    return number
