"""Images and prompts from wherever a recipe says, as the table every other stage starts from.

A source has no ``process``: it makes all its shards in one go, one after the other, with memory that does not grow with
the number of prompts. Rows are set aside in ``SOURCE/.spool.tmp`` while they are sorted.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.base import files, memory
from pipeline.base.errors import InputError
from pipeline.base.images.pixels import MAX_BYTES, MAX_PIXELS
from pipeline.base.progress import WITHOUT_IMAGE
from pipeline.base.sweep import temporary_folder
from pipeline.base.tables import PROMPTS
from pipeline.running.store import Run, options_of
from pipeline.sources.admission import filter
from pipeline.sources.admission.admit import admit
from pipeline.sources.admission.filter import DROPPED, Filter
from pipeline.sources.admission.shards import cut
from pipeline.sources.admission.sift import Array, names, sift
from pipeline.sources.admission.spool import MEMORY, Spool
from pipeline.sources.admission.verdicts import Verdicts
from pipeline.sources.config import ReadSource, ScenesSource
from pipeline.sources.imagine import imagined
from pipeline.sources.imagine.config import ImagineSource
from pipeline.sources.readers import protocol as sources
from pipeline.sources.readers.protocol import Entry

Row = dict[str, Any]

#: The rows a source left out, beside it in the run; written anew with it.
ASIDE = "dropped"
_ROWS_ASIDE = 10_000


@dataclass(frozen=True)
class SourceStage:
    """The prompts of a recipe. Those about imagined images come from the tables of the stages before."""

    spec: ScenesSource | ReadSource | ImagineSource
    seed: int
    shard_size: int

    name = "source"
    version = 4
    schema = PROMPTS

    @property
    def inputs(self) -> tuple[str, ...]:
        return imagined.TABLES if isinstance(self.spec, ImagineSource) else ()

    def options(self) -> dict[str, Any]:
        """What the input says, not where it lies."""
        benchmark = filter.stamp(self.spec.decontaminate)
        return {
            **self._identity(),
            **({"decontaminate": benchmark} if benchmark else {}),
            "shard_size": self.shard_size,
        }

    def shards(self, run: Run) -> Iterator[tuple[int, pa.Table]]:
        """Shard numbers and tables, in order. What was left out is in the run's ``dropped`` before the first comes.

        Raises:
            InputError: an input is malformed, or no prompt is left.
        """
        dedup, benchmark = self.spec.dedup, self.spec.decontaminate
        sieve = None if Filter.idle(dedup, benchmark) else Filter(dedup, benchmark)
        verdicts = Verdicts(
            self.spec.max_image_bytes, self.spec.max_image_pixels, hashed=Filter.hashes(dedup, benchmark)
        )
        aside = _Aside(run, self.name)
        yield from spool_shards(run, self.name, self.shard_size, self._entries(run), verdicts, sieve, aside)

    def extras(self, table: pa.Table) -> dict[str, int]:
        return {WITHOUT_IMAGE: count} if (count := without_image(table)) else {}

    def _entries(self, run: Run) -> Iterator[Entry]:
        if isinstance(self.spec, ImagineSource):
            return islice(imagined.entries(run, self.spec.origin), self.spec.limit)
        return sources.entries(self.spec, self.seed)

    def _identity(self) -> dict[str, Any]:
        if isinstance(self.spec, ImagineSource):
            # Texts, images, ranking and questions count by what the tables say.
            counted = {"kind", "limit", "dedup", "max_image_bytes", "max_image_pixels"}
            return {**self.spec.model_dump(mode="json", include=counted), "origin": self.spec.origin}
        return sources.identity(self.spec, self.seed)


@dataclass(frozen=True)
class BuiltSource:
    """Prompts that ``build(config)`` yields, such as those of an evaluation. Duplicates are merged without a word."""

    name: str
    build: Callable[[Mapping[str, Any]], Iterator[Row]]
    config: Mapping[str, Any]
    shard_size: int

    version = 2
    inputs = ()
    schema = PROMPTS

    def options(self) -> dict[str, Any]:
        return {**self.config, "shard_size": self.shard_size}

    def shards(self, run: Run) -> Iterator[tuple[int, pa.Table]]:
        entries = (Entry(**row) for row in self.build(self.config))
        yield from spool_shards(run, self.name, self.shard_size, entries, Verdicts(MAX_BYTES, MAX_PIXELS, hashed=False))

    def extras(self, table: pa.Table) -> dict[str, int]:
        return {}


def without_image(prompts: pa.Table) -> int:
    """How many prompts can be used and have no image. Images that were overlooked show here."""
    none = pc.equal(pc.list_value_length(prompts["images"]), 0)
    return pc.sum(pc.and_(none, pc.equal(prompts["status"], "ok"))).as_py() or 0


def spool_shards(
    run: Run,
    stage: str,
    size: int,
    entries: Iterable[Entry],
    verdicts: Verdicts,
    sieve: Filter | None = None,
    aside: _Aside | None = None,
    most: int = MEMORY,
    remedy: str = "check `source` in the recipe",
) -> Iterator[tuple[int, pa.Table]]:
    """The shards of ``entries``, numbered as those that the run already has allow; duplicates merged. ``remedy``: what
    helps where there are none.

    Raises:
        InputError: no prompt is left.
    """
    with contextlib.ExitStack() as stack:
        # Beside the run's own files there is room for them; an object store takes no such file.
        if files.is_local(run.path):
            folder = run.folder(stage)
        else:
            folder = Path(stack.enter_context(temporary_folder("source")))
        with Spool(folder / ".spool.tmp", most) as spool:
            try:
                for batch in admit(entries, verdicts, spool.blobs):
                    spool.add(batch)
            finally:
                verdicts.close()
            spool.finish()
            memory.release()  # what was used while spooling stands beside what the shards need otherwise
            # Who keeps what was asked and answered apart, as evaluations do, asks each question once.
            kept = sift(spool, sieve, aside.add if aside else _forget, strict=aside is not None)
            memory.release()
            if aside:
                aside.finish()
            if not len(kept.ids):
                why = f": all {spool.rows} rows were dropped, see {ASIDE}/" if spool.rows else ""
                raise InputError(f"stage {stage!r} has no prompts{why}", remedy)
            yield from cut(spool, kept, size, _before(run, stage, size))


def _before(run: Run, stage: str, size: int) -> Iterator[tuple[int, Array]]:
    record = run.record(stage)
    if record is not None and record.options.get("shard_size") == size:
        for shard in run.shards(stage):
            table = run.peek(stage, shard)
            # A killed process may have left some that were laid out for another size.
            if options_of(table).get("shard_size", size) == size:
                yield shard, names(table["id"])


def _forget(row: Row) -> None: ...


class _Aside:
    """Writes the rows that the source ``of`` drops, some thousand at a time. State: those not yet written."""

    def __init__(self, run: Run, of: str) -> None:
        self._run, self._by, self._written = run, run.record(of), 0
        self._rows: list[Row] = []
        run.clear(ASIDE)

    def add(self, row: Row) -> None:
        self._rows.append(row)
        if len(self._rows) == _ROWS_ASIDE:
            self.finish()

    def finish(self) -> None:
        if self._rows:
            table = pa.Table.from_pylist(self._rows, schema=DROPPED)
            self._run.write(ASIDE, self._written, table, by=self._by)
            self._rows, self._written = [], self._written + 1
