"""Run stages over shards, here or on a pool of workers, and keep account of what came of it.

Workers read their input shards and write the output shard themselves; only counts travel through the driver. A stage
can be killed at any moment and continued: what is finished is what lies on disk.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pyarrow as pa

from pipeline.base import memory, secrets
from pipeline.base.errors import InputError, TooManyFailures
from pipeline.base.progress import Progress
from pipeline.base.tables import error_status
from pipeline.engines.protocol import TRANSIENT
from pipeline.running.pool import Done, Live, Lost, Pool, start_ray, stop_ray
from pipeline.running.resume import Resume, prepare
from pipeline.running.stage import Dispensable, ForImages, Salvager, Source, Stage, Unfinished, WorkerSpec
from pipeline.running.store import Record, Run, Shard, Survey

Opener = Callable[[], Any]

#: Formulas run in this process, unless there is so much to do that starting workers (seconds) pays.
INLINE_ROWS = 20_000


def _nothing() -> None:
    """What a worker that needs no model opens."""


FORMULAS = WorkerSpec("formulas", _nothing, count=0)


@dataclass(frozen=True)
class StageResult:
    """``rows`` and ``failed`` count the whole table, ``seconds`` every run that worked on it, ``reused`` shards."""

    seconds: float
    rows: int
    failed: int
    reused: int
    extras: Mapping[str, int] = field(default_factory=dict)


class Workers:
    """The pool of the last stage, which stays warm until a stage with another ``WorkerSpec`` needs its resources.
    State: that pool, ``starts`` (the seconds that each took until a model was open), and what was warned of. ``around``
    changes how models are opened. A context manager: leaving it stops them, and Ray if it was started here."""

    def __init__(self, progress: Progress, around: Callable[[Opener], Opener] = lambda opener: opener) -> None:
        self._progress, self._around = progress, around
        self.starts: list[float] = []
        self.pool: Pool | None = None
        self._spec: WorkerSpec | None = None
        self._started_ray = False
        self._stage = ""
        self._told: set[str] = set()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def of(self, spec: WorkerSpec, stage: str, shards: int | None = None) -> Pool:
        """Those of ``spec``, at work for so many ``shards`` of ``stage`` from now on."""
        self._stage = stage
        if self.pool is not None and not (self._spec is not None and self._spec.serves(spec)):
            self.pool.close()
            self.pool = None
        if self.pool is None:
            who = f"{spec.count} x {spec.kind}" if isinstance(spec.count, int) and spec.count else spec.kind
            started = time.monotonic()
            with self._progress.wait(f"starting {who}"):
                self._started_ray = start_ray() or self._started_ray
                around = replace(spec, open=self._around(spec.open))
                self.pool, self._spec = Pool(around, self._tell, shards), spec
            self.starts.append(time.monotonic() - started)
        return self.pool

    def counts(self) -> dict[str, int]:
        """What the workers say of themselves, added up."""
        return self.pool.stats() if self.pool is not None else {}

    def close(self) -> None:
        if self.pool is not None:
            self.pool.close()
            self.pool = None
        if self._started_ray:
            stop_ray()
            self._started_ray = False

    def _tell(self, text: str) -> None:
        """A worker's warning, once however many of them say it, and in however many stages."""
        if text not in self._told:
            self._told.add(text)
            self._progress.say(f"{self._stage}: warning: {secrets.text(text)}")


class Executor:
    """Runs stages of one run directory. A context manager: leaving it stops the workers, if they are its own."""

    def __init__(
        self,
        run: Run,
        max_failure_rate: float = 0.01,
        shard_retries: int = 2,
        progress: Progress | None = None,
        workers: Workers | None = None,
    ) -> None:
        """``workers``: those of several executors, which whoever made them closes; else its own."""
        self._store = run
        self._survey = Survey(run)
        self._max_failure_rate = max_failure_rate
        self._shard_retries = shard_retries
        self._progress = progress or Progress()
        self._workers = workers or Workers(self._progress)
        self._owns_workers = workers is None

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *_: object) -> None:
        if self._owns_workers:
            self.close()

    def close(self) -> None:
        self._workers.close()

    def run(self, stage: Stage, resume: Resume = "if-possible") -> StageResult:
        """Make every missing shard of ``stage``.

        Raises:
            PipelineError: of a kind that trying again cannot cure; finished shards are kept.
            TooManyFailures: more rows failed than ``max_failure_rate`` allows.
            StoreError: ``resume`` is "always" and an option has changed.
        """
        shards = self._store.shards(stage.inputs[0])
        if not shards:
            raise InputError(f"stage {stage.name!r} reads {stage.inputs[0]!r}, which has no shards", "run that first")
        spare = isinstance(stage, Dispensable) and stage.dispensable
        self._survey = Survey(self._store)
        self._survey.look(stage.inputs[0], shards)
        prepared = prepare(self._store, stage, resume, self._survey)
        for stray in prepared.done - set(shards):
            self._store.remove(stage.name, stray)
        done = prepared.done & set(shards)
        todo = [shard for shard in shards if shard not in done]
        if not todo and prepared.record.finished:
            return self._finish(prepared.record, shards, len(done), spare)
        clock = _Clock(self._store, prepared.record)
        total = self._rows(stage.inputs[0], shards)
        opened = sum(self._workers.starts)
        work = self._work(stage, prepared.record, todo)  # starts the workers, which may take a minute
        clock.start = sum(self._workers.starts) - opened  # and should not count as slowness
        with self._progress.stage(stage.name, total, self._rows(stage.inputs[0], done)) as bar:
            for event in work:
                if isinstance(event, Live):
                    bar.live(event.stats)
                    continue
                about = event.about if isinstance(event, Done) else self._give_up(stage, prepared.record, event)
                self._survey.note(stage.name, event.shard, about)
                # What a shard was made from, for it may have several rows for one of these, as pairs have.
                bar.advance(self._rows(stage.inputs[0], [event.shard]), about.failed, about.extras)
                clock.tick()
        self._store.drop_earlier(stage.name)
        return self._finish(clock.record(), shards, len(done), spare)

    def write(self, source: Source, resume: Resume = "if-possible") -> StageResult:
        """Write the shards that ``source`` makes; it is not asked if they still hold."""
        self._survey = Survey(self._store)
        prepared = prepare(self._store, source, resume, self._survey)
        if prepared.record.finished:
            return self._finish(prepared.record, prepared.done, len(prepared.done))
        clock = _Clock(self._store, prepared.record)
        made = set()
        with self._progress.stage(source.name, None) as bar:
            for shard, table in source.shards(self._store):
                cast, extras = table.cast(source.schema), source.extras(table)
                about = self._store.write(source.name, shard, cast, extras=extras, by=prepared.record)
                self._survey.note(source.name, shard, about)
                made.add(shard)
                bar.advance(about.rows, about.failed, about.extras)
        for stray in set(self._store.shards(source.name)) - made:
            self._store.remove(source.name, stray)
        return self._finish(clock.record(), made, 0)

    def _work(self, stage: Stage, record: Record, todo: list[int]) -> Iterator[Done | Lost | Live]:
        if not todo:
            return iter(())
        spec = self._worker(stage)
        if spec is None and self._rows(stage.inputs[0], todo) > INLINE_ROWS:
            spec = FORMULAS
        if spec is None:
            return (Done(shard, process_shard(stage, None, self._store, shard, record)) for shard in todo)
        # What the shards carry goes with the work: a worker whose driver is gone must not sign for the next one.
        make = partial(process_shard, by=record)
        return self._workers.of(spec, stage.name, len(todo)).run(
            stage, make, self._store.path, todo, self._shard_retries
        )

    def _worker(self, stage: Stage) -> WorkerSpec | None:
        """The stage's, fitted to the prompts that it reads."""
        spec = stage.worker
        if spec is None or not isinstance(spec.open, ForImages):
            return spec
        counts = (self._store.most_images(name) for name in stage.inputs)
        return replace(spec, images=max((most for most in counts if most is not None), default=None))

    def _rows(self, stage: str, shards: Iterable[int]) -> int:
        return sum(about.rows for shard in shards if (about := self._survey.about(stage, shard)) is not None)

    def _give_up(self, stage: Stage, record: Record, lost: Lost) -> Shard:
        """Every row of the shard becomes a failed row; a later run tries the shard again."""
        ids = list(dict.fromkeys(self._store.read(stage.inputs[0], lost.shard)["id"].to_pylist()))
        rows = [{"id": row_id, **error_status(lost.error_type, lost.error)} for row_id in ids]
        table = pa.Table.from_pylist(rows, schema=stage.schema)
        inputs = self._store.input_digests(stage.inputs, lost.shard)
        return self._store.write(stage.name, lost.shard, table, inputs, retry=True, by=record)

    def _finish(self, record: Record, shards: Iterable[int], reused: int, spare: bool = False) -> StageResult:
        """``spare``: however many rows failed, others can do without them."""
        abouts = [about for shard in shards if (about := self._survey.about(record.stage, shard)) is not None]
        failures = _merge(abouts)
        extras: collections.Counter[str] = collections.Counter()
        for about in abouts:
            extras.update(about.extras)
        bad = sum(count for count, _, _ in failures.values())
        record = replace(record, rows=sum(a.rows for a in abouts), failed=bad, extras=dict(extras), finished=True)
        self._store.save(record)
        memory.release()
        if bad > self._max_failure_rate * record.rows and not spare:
            raise _too_many(record, failures, self._max_failure_rate)
        return StageResult(record.seconds, record.rows, record.failed, reused, record.extras)


def process_shard(stage: Stage, model: Any, run: Run, shard: int, by: Record | None = None) -> Shard:
    """Make one shard, of the stage that ``by`` describes. Runs in the driver or in a worker."""
    tables, inputs = {}, {}
    for name in stage.inputs:
        tables[name], inputs[name] = run.load(name, shard)
    earlier = run.earlier(stage.name, shard)
    # Set aside by whatever was killed here before: of use is what was made with options that say so.
    if earlier is not None and earlier[1] is not None and isinstance(stage, Salvager) and stage.salvages(earlier[1]):
        tables[stage.name] = earlier[0]
    table = stage.process(model, tables).cast(stage.schema)
    retry = not TRANSIENT.isdisjoint(table["error_type"].to_pylist())
    retry |= isinstance(stage, Unfinished) and stage.is_unfinished(table)
    return run.write(stage.name, shard, table, inputs, retry, stage.extras(table), by)


def _merge(shards: Iterable[Shard]) -> dict[str, tuple[int, str, str]]:
    """Error type -> (how many, the id of one, its message)."""
    merged: dict[str, tuple[int, str, str]] = {}
    for about in shards:
        for kind, (count, row_id, message) in about.failures.items():
            before = merged.get(kind, (0, row_id, message))
            merged[kind] = (before[0] + count, *before[1:])
    return merged


def _too_many(record: Record, failures: Mapping[str, tuple[int, str, str]], allowed: float) -> TooManyFailures:
    kind, (count, row_id, message) = max(failures.items(), key=lambda item: item[1][0])
    return TooManyFailures(
        f"stage {record.stage!r}: {record.failed} of {record.rows} rows failed, more than "
        f"max_failure_rate={allowed:g}; most often {kind} ({count}), for instance row {row_id}: {message}",
        "correct the cause and run again (what is finished is kept), or raise max_failure_rate",
    )


class _Clock:
    """Adds up the seconds a stage has taken, ``start`` of them to open its models, and writes them down as it goes, so
    a kill loses a few at most."""

    def __init__(self, run: Run, record: Record) -> None:
        self._run, self._record, self.start = run, record, 0.0
        self._began = self._saved = time.monotonic()

    def record(self) -> Record:
        seconds = self._record.seconds + time.monotonic() - self._began
        return replace(self._record, seconds=seconds, start=self._record.start + self.start)

    def tick(self) -> None:
        if time.monotonic() - self._saved > 2:
            self._saved = time.monotonic()
            self._run.save(self.record())
