"""What the stages of a run cost: each is run for real over a few prompts, in a folder that is thrown away.

A stage goes over several samples of the prompts, the smallest first. What that takes longer than its size explains is
what a model takes until it is at full speed; the others tell what a batch costs and what a row does
(``pipeline.recipe.cost``). The last sample has as many shards as a worker has at a time, and is left out from the stage
on that would take longer than ``PATIENCE`` for it.
"""

from __future__ import annotations

import io
import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.base import columns
from pipeline.base.errors import PipelineError
from pipeline.base.progress import Progress
from pipeline.engines.counted import OpenCounted
from pipeline.publishing.config import StyleGates
from pipeline.publishing.publish import FOLDER as DATASET
from pipeline.recipe.cost import Cost, Lap, batch_rows
from pipeline.recipe.plan import Plan, publish_run, run_stage
from pipeline.running.executor import Executor, Workers
from pipeline.running.pool import IN_FLIGHT
from pipeline.running.stage import Source, Stage
from pipeline.running.store import Run
from pipeline.sources.admission.prompt_id import IMAGES
from pipeline.sources.count import most_entries
from pipeline.sources.imagine.config import ImagineSource
from pipeline.sources.imagine.stage import TextSource
from pipeline.sources.stage import BuiltSource, SourceStage

#: What the folder beside a run is called in which it is measured.
FOLDER = "measure"
#: Seconds that a stage may take for the largest sample.
PATIENCE = 30.0
#: How many times as many prompts are read as are used: files often begin with prompts of one kind.
READ = 2
#: Prompts over which what is loaded late is loaded.
_FIRST = 3


@dataclass(frozen=True)
class Measured:
    """``costs`` by stage, as far as they could be told; ``rows`` of the tables that begin a chain; ``failures`` by
    stage: why nothing is known. ``pairs_per_prompt`` were made of the samples; ``published`` is the run of the largest
    one with a dataset."""

    costs: dict[str, Cost] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    pairs_per_prompt: float | None = None
    published: Run | None = None


def measure(
    plan: Plan, place: Path, count: int, stages: Sequence[Source | Stage], held: Collection[str], progress: Progress
) -> Measured:
    """Run ``stages`` over ``count`` prompts, and a few more, below ``place``. Of those in ``held`` with a model the
    rows of the run are taken, where they have them.

    Raises:
        PipelineError: a source cannot be read, or a model cannot be opened.
    """
    return _Measurement(plan, place, count, frozenset(held), progress).over(stages)


@dataclass(frozen=True)
class _Given:
    """Rows that are there already, as a source: a shard each."""

    of: Source | Stage
    tables: Mapping[int, pa.Table]

    @property
    def name(self) -> str:
        return self.of.name

    @property
    def version(self) -> int:
        return self.of.version

    @property
    def schema(self) -> pa.Schema:
        return self.of.schema

    inputs = ()

    def options(self) -> dict[str, Any]:
        return {}

    def extras(self, table: pa.Table) -> dict[str, int]:
        return {}

    def shards(self, run: Run) -> Iterator[tuple[int, pa.Table]]:
        yield from self.tables.items()


class _Measurement:
    """State: the samples that are still looked at, and what is known so far."""

    def __init__(self, plan: Plan, place: Path, count: int, held: frozenset[str], progress: Progress) -> None:
        self._plan, self._run, self._held = plan, Run(plan.recipe.run_dir), held
        self._progress, self._place = progress, place
        self._shard = plan.recipe.shard_size
        self._sizes = _sizes(count, self._shard)
        self._samples = [Run(place / str(number)) for number in range(len(self._sizes))]
        self._left: dict[str, set[int]] = {}
        self._measured = Measured()

    def over(self, stages: Sequence[Source | Stage]) -> Measured:
        silent = Progress(io.StringIO())
        with Workers(self._progress, OpenCounted) as workers:
            for stage in stages:
                try:
                    if isinstance(stage, SourceStage | BuiltSource | TextSource) and not stage.inputs:
                        self._begin(stage, silent)
                    else:
                        self._go_on(stage, workers, silent)
                except PipelineError as error:
                    if isinstance(stage, Source) and not stage.inputs:
                        raise
                    self._left[stage.name] = set()
                    self._measured.failures[stage.name] = str(error)
                self._tell(stage.name)
        self._publish()
        return self._measured

    def _publish(self) -> None:
        """Write the pairs of each sample that has some, whatever their style."""
        runs = [self._samples[number] for number in sorted(self._left.get("pair", ()))]
        records = [run.record("pair") for run in runs]
        counts = [record.extras.get("pairs", 0) if record is not None else 0 for record in records]
        prompts = sum(_rows(run, "source") for run in runs)
        publish = self._plan.recipe.publish
        any_style = publish.model_copy(update={"style": StyleGates(vocabulary=publish.style.vocabulary)})
        lenient = replace(self._plan, recipe=self._plan.recipe.model_copy(update={"publish": any_style}))
        laps, size, rows = [], 0, 0
        # What is loaded late, only a sample of some size loads: the largest goes first and comes again.
        with_pairs = [run for run, pairs in zip(runs, counts, strict=True) if pairs]
        for turn, run in enumerate([*with_pairs[-1:], *with_pairs]):
            try:
                _, seconds = publish_run(lenient, run, [f"turn {turn}"])
            except PipelineError as error:
                self._measured.failures["publish"] = str(error)
                continue
            laps.append(Lap(_rows(run, "pair"), seconds))
            size, rows = size + _folder_size(run.path / DATASET), rows + laps[-1].rows
            self._measured = replace(self._measured, published=run)
        share = sum(counts) / prompts if prompts else None
        self._measured = replace(self._measured, pairs_per_prompt=share)
        if laps:
            cost = Cost.of(laps, self._shard, True, None, rows, rows, size, {})
            self._measured.costs["publish"] = cost
            self._tell("publish")

    def _begin(self, stage: SourceStage | BuiltSource | TextSource, silent: Progress) -> None:
        """Read some of a source, and deal it out to the samples."""
        wanted = READ * sum(self._sizes)
        table = None
        if stage.name in self._held:
            table = _first_rows(self._run, stage.name, wanted)
            record = self._run.record(stage.name)
            assert record is not None
            self._measured.rows[stage.name] = record.rows
        if table is None or not table.num_rows:
            laps = []
            steps = (wanted // 16, wanted // 4, wanted) if isinstance(stage, SourceStage) else (None,)
            for rows in steps:
                started, run = time.monotonic(), Run(self._place / f"read-{rows}")
                with Executor(run, 1.0, progress=silent) as executor:
                    result = executor.write(_up_to(stage, rows and max(1, rows)), "never")
                laps.append(Lap(result.rows, time.monotonic() - started))
            # What is left out of those that are read, is left out of all.
            there: int | None = result.rows
            if isinstance(stage, SourceStage) and not isinstance(stage.spec, ImagineSource):
                there = most_entries(stage.spec)
            if there is not None:
                looked = there if rows is None else min(there, wanted)
                self._measured.rows[stage.name] = round(there * result.rows / looked) if looked else 0
            table = run.table(stage.name)
            size = _bytes(run, stage.name)
            cost = Cost.of(laps, self._shard, True, None, result.rows, result.rows, size, {})
            self._measured.costs[stage.name] = cost
        for number, at in enumerate(deal(_groups(table), self._sizes)):
            with Executor(self._samples[number], 1.0, progress=silent) as executor:
                executor.write(_Given(stage, self._cut(table.take(pa.array(at)).combine_chunks())), "never")
        self._left[stage.name] = set(range(len(self._sizes)))

    def _go_on(self, stage: Source | Stage, workers: Workers, silent: Progress) -> None:
        left = set.intersection(*(self._left.get(name, set()) for name in stage.inputs))
        self._left[stage.name] = set()
        laps: list[tuple[int, Lap]] = []
        counts: Counter[str] = Counter()
        opened: float | None = None
        spec = None if isinstance(stage, Source) else stage.worker
        full = batch_rows(stage, self._shard)
        read = made = size = 0
        error: PipelineError | None = None
        for number in sorted(left):
            run = self._samples[number]
            rows = _rows(run, stage.inputs[0])
            so_far = Cost(tuple(lap for _, lap in laps[1:]), full)
            if number == len(self._sizes) - 1 and (so_far.seconds(rows) or 0.0) > PATIENCE:
                continue
            if self._is_held(stage) and (tables := self._earlier(stage, run)) is not None:
                with Executor(run, 1.0, progress=silent) as executor:
                    executor.write(_Given(stage, tables), "never")
                self._left[stage.name].add(number)
                continue
            starts, before = len(workers.starts), workers.counts() if spec is not None else {}
            started = time.monotonic()
            with Executor(run, 1.0, progress=silent, workers=workers) as executor:
                try:
                    run_stage(executor, stage, "never")
                except PipelineError as failure:
                    if spec is not None and not laps:
                        raise
                    error = failure  # a sample may be too small for the stage, as one without a question
                    continue
            seconds = time.monotonic() - started
            if len(workers.starts) > starts:
                opened = workers.starts[-1]
                seconds, before = seconds - opened, {}
            elif spec is not None:
                opened = 0.0 if opened is None else opened
            self._left[stage.name].add(number)
            laps.append((number, Lap(rows, seconds)))
            if spec is not None:
                counts.update({name: value - before.get(name, 0) for name, value in workers.counts().items()})
            read, made, size = read + rows, made + _rows(run, stage.name), size + _bytes(run, stage.name)
        if not laps:
            if error is not None:
                raise error
            return
        self._measured.costs[stage.name] = Cost.of(
            [lap for _, lap in laps], full, isinstance(stage, Source), opened, read, made, size, counts
        )

    def _cut(self, table: pa.Table) -> dict[int, pa.Table]:
        """In shards, of which only the largest sample has several."""
        starts = range(0, table.num_rows, self._shard if table.num_rows > self._sizes[-2:][0] else table.num_rows)
        return {number: table.slice(start, self._shard) for number, start in enumerate(starts)}

    def _earlier(self, stage: Source | Stage, sample: Run) -> dict[int, pa.Table] | None:
        """What the run has for the prompts of a sample; None where it lacks one."""
        name = stage.inputs[0]
        ids = {shard: sample.read(name, shard)["id"].to_pylist() for shard in sample.shards(name)}
        table = _rows_of(self._run, stage.name, [row_id for part in ids.values() for row_id in part])
        if table is None:
            return None
        return {shard: columns.align(table, pa.array(part, pa.string())) for shard, part in ids.items()}

    def _is_held(self, stage: Source | Stage) -> bool:
        return stage.name in self._held and not isinstance(stage, Source) and stage.worker is not None

    def _tell(self, name: str) -> None:
        cost = self._measured.costs.get(name)
        if cost is not None:
            laps = ", ".join(f"{lap.rows} rows in {lap.seconds:.2f} s" for lap in cost.laps)
            start = f"; ready after {cost.start:.1f} s" if cost.start else ""
            self._progress.tell(f"measured {name}: {laps}{start}")


def most_read(count: int, plan: Plan) -> int:
    """How many prompts of a source are read to measure ``count`` of them."""
    return READ * sum(_sizes(count, plan.recipe.shard_size))


def _sizes(count: int, shard: int) -> list[int]:
    """Of the samples, in the order in which they are run."""
    return sorted({min(_FIRST, count), max(1, count // 4), count, max(count, IN_FLIGHT * shard)})


def deal(groups: Sequence[Sequence[int]], sizes: Sequence[int]) -> list[list[int]]:
    """For each size so many of the rows in ``groups``, evenly spread over them, so that each has its share of every
    kind. A group stays whole where it can, and no row is in two samples where there are enough.

    >>> deal([[0], [1], [2], [3], [4], [5], [6], [7]], [2, 4])
    [[1, 5], [0, 2, 4, 6]]
    >>> deal([[0, 1, 2], [3, 4, 5], [6, 7, 8], [9, 10, 11]], [3, 6])
    [[3, 4, 5], [0, 1, 2, 6, 7, 8]]
    """
    places: dict[int, list[int]] = {}
    everything = [list(group) for group in groups]
    free = everything
    for number in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
        count = min(sizes[number], sum(map(len, everything)))
        if sum(map(len, free)) < count:
            free = everything
        chosen = _spread(free, count)
        places[number] = sorted(row for at in chosen for row in free[at])[:count]
        used = set(places[number])
        free = [left for group in free if (left := [row for row in group if row not in used])]
    return [places[number] for number in range(len(sizes))]


def _spread(groups: Sequence[Sequence[int]], count: int) -> list[int]:
    """Places of groups that have ``count`` rows, or some more."""
    rows, seen, taken, chosen = sum(map(len, groups)), 0, 0, []
    for at, group in enumerate(groups):
        seen += len(group)
        if taken + len(group) / 2 <= count * seen / rows:
            chosen.append(at)
            taken += len(group)
    # Too few where groups are large beside the sample.
    for at in sorted(set(range(len(groups))) - set(chosen), key=lambda at: abs(2 * at - len(groups))):
        if taken >= count:
            break
        chosen.append(at)
        taken += len(groups[at])
    return chosen


def _groups(table: pa.Table) -> list[list[int]]:
    """The rows by their images, which an engine looks at once for all their prompts; those that ask alike lie beside
    each other."""
    rows = table.select(["id", "prompt"]).to_pylist()
    images = pc.list_value_length(table["images"]).to_pylist()
    texts = [row["prompt"][-1]["content"] if row["prompt"] else "" for row in rows]
    kinds = [(images[at] or 0, len(texts[at]), texts[at], row["id"]) for at, row in enumerate(rows)]
    groups: dict[str, list[int]] = {}
    for at in sorted(range(len(rows)), key=kinds.__getitem__):
        groups.setdefault(rows[at]["id"][:IMAGES] if images[at] else rows[at]["id"], []).append(at)
    return sorted(groups.values(), key=lambda group: (len(group), kinds[group[0]]))


def _up_to(stage: Any, rows: int | None) -> Any:
    if rows is None:
        return stage
    limit = rows if stage.spec.limit is None else min(rows, stage.spec.limit)
    return replace(stage, spec=stage.spec.model_copy(update={"limit": limit}))


def _first_rows(run: Run, stage: str, wanted: int) -> pa.Table:
    """Shards of a table until it has so many rows: which prompt is in which is left to chance."""
    parts, rows = [], 0
    for table in run.tables(stage):
        parts.append(table)
        rows += table.num_rows
        if rows >= wanted:
            break
    return pa.concat_tables(parts)


def _rows_of(run: Run, stage: str, ids: Collection[str]) -> pa.Table | None:
    """The rows of a table with these ids, if it has all."""
    wanted, parts, rows = pa.array(sorted(ids), pa.string()), [], 0
    for table in run.tables(stage):
        part = table.filter(pc.is_in(columns.whole(table["id"]), wanted))
        parts.append(part)
        rows += part.num_rows
        if rows >= len(ids):
            return pa.concat_tables(parts)
    return None


def _rows(run: Run, stage: str) -> int:
    return sum(about.rows for shard in run.shards(stage) if (about := run.about(stage, shard)) is not None)


def _bytes(run: Run, stage: str) -> int:
    return sum(path.stat().st_size for path in run.folder(stage).glob("data-*.arrow"))


def _folder_size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
