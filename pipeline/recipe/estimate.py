"""How much a run still has to do, from what is known without running it. What is not known is None, never 0."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

from pipeline.base import files
from pipeline.base.amounts import duration, megabytes, number
from pipeline.base.errors import StoreError, UserError
from pipeline.base.hardware import Hardware, this_machine
from pipeline.engines import counted
from pipeline.recipe.cost import Cost
from pipeline.recipe.measure import Measured
from pipeline.recipe.plan import Outlook, Plan
from pipeline.rewriting.correct_stage import CorrectStage
from pipeline.rewriting.detect_stage import AskDetector
from pipeline.rewriting.questions_stage import QuestionSource
from pipeline.rewriting.restyle_stage import RestyleStage
from pipeline.rewriting.sentence_judge import JudgeDetector
from pipeline.running.executor import INLINE_ROWS
from pipeline.running.pool import hardware
from pipeline.running.stage import Source, Stage, WorkerSpec
from pipeline.running.store import Record, Run, flat_options
from pipeline.sampling.config import GivenOptions
from pipeline.sampling.continuation import ContinueStage
from pipeline.sampling.stage import SampleStage
from pipeline.scoring.ask import AskStage
from pipeline.sources.config import CocoSource, FolderSource, ScenesSource, VisualGenomeSource
from pipeline.sources.count import most_entries
from pipeline.sources.imagine.config import ImagineSource, Written
from pipeline.sources.imagine.instruct import InstructStage
from pipeline.sources.imagine.stage import TextSource
from pipeline.sources.stage import BuiltSource, SourceStage
from reward.asking.judge import JudgeScorer
from reward.asking.protocol import Asker

#: What may differ between two stages of one speed.
_NO_MATTER = ("seed", "on_policy", "dataset", "shard_size")
#: Sources whose every prompt is about an image.
_WITH_IMAGES = (ScenesSource, ImagineSource, FolderSource, CocoSource, VisualGenomeSource)
MEASURED = "measured"


@dataclass(frozen=True)
class Speed:
    """Rows a second, without the time that models took to start, and the run that was so fast."""

    rows_per_second: float
    run: str

    @classmethod
    def of(cls, run: Run, record: Record, here: Run) -> Speed:
        return cls(
            record.rows / (record.seconds - record.start), "this run" if run.path == here.path else run.path.name
        )


@dataclass(frozen=True)
class Asks:
    """What is sent to a model, and what comes back; at most, unless it was measured."""

    requests: int | None = None
    images: int | None = None
    prompt_tokens: int | None = None
    answers: int | None = None
    tokens: int | None = None

    @property
    def line(self) -> str:
        """
        >>> Asks(9, 9, None, 72, 4_608).line
        '9 requests with 9 images and ? prompt tokens, 72 answers, 4,608 tokens'
        """
        return (
            f"{number(self.requests)} requests with {number(self.images)} images and {number(self.prompt_tokens)} "
            f"prompt tokens, {number(self.answers)} answers, {number(self.tokens)} tokens"
        )


@dataclass(frozen=True)
class Estimate:
    """What a stage has left, each at most, unless it was measured; ``what`` says it in words.

    ``asks`` is None for a stage that asks no model. ``start``: seconds until its models are open, 0 where they are
    open already. ``seconds`` are those of its work. ``pace`` says where that is known from. ``gpus`` are held
    meanwhile; ``size`` is in bytes.
    """

    stage: str
    rows: int | None
    what: str = ""
    asks: Asks | None = None
    start: float | None = 0.0
    seconds: float | None = None
    pace: str = ""
    gpus: float = 0.0
    size: int | None = None

    @property
    def line(self) -> str:
        """
        >>> Estimate("sample", 9, asks=Asks(9, 9, None, 72, 4_608), seconds=9.0, pace="1 rows/s (a)").line
        'sample: 9 rows, 9 requests with 9 images and ? prompt tokens, 72 answers, 4,608 tokens; 9.0 s at 1 rows/s (a)'
        >>> Estimate("score", None, size=2_000_000).line
        'score: ? rows; time ?; 2.0 MB'
        """
        amounts = self.what or f"{number(self.rows)} rows"
        if self.asks is not None and self.asks.line:
            amounts += f", {self.asks.line}"
        time = "time ?"
        if self.seconds is not None:
            time = f"{duration(self.seconds)} at {self.pace}" if self.pace else duration(self.seconds)
        if self.start:
            time = f"{duration(self.start)} to start, {time}"
        return "; ".join([f"{self.stage}: {amounts}", time, *([megabytes(self.size)] if self.size else [])])

    @property
    def gpu_seconds(self) -> float | None:
        if not self.gpus:
            return 0.0
        return None if self.seconds is None or self.start is None else self.gpus * (self.seconds + self.start)


def totals(estimates: Sequence[Estimate]) -> list[str]:
    """Time, GPU hours and disk of all together, and whose are not known.

    >>> totals([Estimate("sample", 9, seconds=90.0, start=30.0, gpus=2, size=5_000_000), Estimate("score", 9)])
    ['time: 2.0 min, and that of score (?)', 'GPU hours: 0.0667', 'disk: 5.0 MB, and that of score (?)']
    """
    seconds = [None if e.seconds is None or e.start is None else e.seconds + e.start for e in estimates]
    gpu = [estimate.gpu_seconds for estimate in estimates]
    names = [estimate.stage for estimate in estimates]
    lines = [_total("time", names, seconds, duration)]
    if any(estimate.gpus for estimate in estimates):
        lines.append(_total("GPU hours", names, gpu, lambda value: f"{value / 3600:.3g}"))
    return [*lines, _total("disk", names, [estimate.size for estimate in estimates], megabytes)]


def _total(what: str, names: Sequence[str], values: Sequence[float | None], write: Any) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return f"{what}: ? (nothing alike has run here)"
    lost = [name for name, value in zip(names, values, strict=True) if value is None]
    others = f", and that of {', '.join(lost)} (?)" if lost else ""
    return f"{what}: {write(sum(known))}{others}"


def estimates(book: Book) -> list[Estimate]:
    """One for each stage from the source to published pairs that would run, in their order."""
    opened: WorkerSpec | None = None
    made = []
    for stage in book.stages.values():
        if stage.name in book.pending:
            spec = None if isinstance(stage, Source) else stage.worker
            made.append(book.estimate(stage, opens=spec is not None and spec != opened))
            opened = spec or opened
    return [*made, *([book.publishing()] if "publish" in book.pending else [])]


@dataclass(frozen=True)
class Book:
    """What is known of the stages of a plan: from the run, from those beside it, and from what was ``measured``."""

    plan: Plan
    run: Run
    outlooks: Sequence[Outlook]
    measured: Measured = field(default_factory=Measured)

    @cached_property
    def pending(self) -> dict[str, Outlook]:
        return {outlook.stage: outlook for outlook in self.outlooks if outlook.reasons}

    @cached_property
    def stages(self) -> dict[str, Source | Stage]:
        return {stage.name: stage for stage in self.plan.generation()}

    def estimate(self, stage: Source | Stage, opens: bool, outlook: Outlook | None = None) -> Estimate:
        """``opens``: no stage before has opened its models. ``outlook``: that of another stage that does as much."""
        outlook = outlook or self.pending[stage.name]
        share = 1 - outlook.done / outlook.shards if outlook.shards else 1.0
        left, read = (_part(rows, share) for rows in (self.rows(stage.name), self._read(stage)))
        cost, spec = self.measured.costs.get(stage.name), None if isinstance(stage, Source) else stage.worker
        made = Estimate(stage.name, left, asks=self._asks(stage, left, read, cost), gpus=gpus_of(spec))
        if cost is not None:
            work = cost.seconds(read, workers_of(spec, read)) if read is not None else None
            return replace(
                made,
                start=cost.start if opens else 0.0,
                seconds=None if work is None else work + cost.first,
                pace=f"{read / work:.3g} rows/s ({MEASURED})" if read and work else "",
                size=_part(left, cost.bytes_per_row),
            )
        earlier = alike(self.run, stage.name, stage.options())
        made = replace(made, start=self._earlier_start(stage) if opens else 0.0)
        if earlier is None:
            return made
        run, record = earlier
        if made.start is None and record.start:
            made = replace(made, start=record.start)
        speed = Speed.of(run, record, self.run)
        return replace(
            made,
            seconds=None if left is None else left / speed.rows_per_second,
            pace=f"{speed.rows_per_second:.3g} rows/s ({speed.run})",
            size=_part(left, _bytes_per_row(run, record)),
        )

    def start_of(self, stage: Source | Stage) -> float | None:
        """Seconds until the models of a stage are at full speed, by whichever stage opened such ones."""
        spec = None if isinstance(stage, Source) else stage.worker
        for other in self.stages.values():
            if spec is not None and not isinstance(other, Source) and other.worker == spec:
                cost = self.measured.costs.get(other.name)
                if cost is not None and cost.start:
                    return cost.start + cost.first
        cost = self.measured.costs.get(stage.name)
        return cost.start + cost.first if cost is not None and cost.start else self._earlier_start(stage)

    def _earlier_start(self, stage: Source | Stage) -> float | None:
        """How long such models took to open in this run, where it has done so; 0 without any."""
        if isinstance(stage, Source) or stage.worker is None:
            return 0.0
        for other in self.stages.values():
            record = self.run.record(other.name)
            if not isinstance(other, Source) and other.worker == stage.worker and record is not None and record.start:
                return record.start
        return None

    def publishing(self) -> Estimate:
        rows, cost = self.rows("pair"), self.measured.costs.get("publish")
        size = None
        if cost is not None and rows is not None and cost.bytes_per_row is not None:
            size = math.ceil(rows * cost.bytes_per_row)
        seconds = cost.seconds(rows) if cost is not None and rows is not None else None
        if cost is not None and seconds is not None:
            seconds += cost.first
        pairs = self.pairs()
        found = Estimate("publish", pairs, f"{number(pairs)} pairs", seconds=seconds, size=size)
        if cost is not None or rows is None:
            return found
        record = self.run.record("publish")
        if record is not None and record.rows and record.seconds and pairs:
            each = record.seconds / record.rows
            return replace(found, seconds=pairs * each, pace=f"{1 / each:.3g} pairs/s (this run)")
        return found

    def pairs(self) -> int | None:
        """How many pairs there are, or will be as far as was measured."""
        record = self.run.record("pair")
        if "pair" not in self.pending and record is not None:
            return record.extras.get("pairs")
        rows, share = self.rows("source"), self.measured.pairs_per_prompt
        return None if rows is None or share is None else math.ceil(rows * share)

    def rows(self, name: str) -> int | None:
        """Rows of a table: counted where it holds, else as many as were measured, or as the recipe lets in at most."""
        stage, record = self.stages.get(name), self.run.record(name)
        if name not in self.pending and record is not None and record.finished:
            return record.rows
        if name in self.measured.rows:
            return self.measured.rows[name]
        if isinstance(stage, TextSource):
            return most(stage.spec)
        if isinstance(stage, BuiltSource):
            return self.plan.held.most if self.plan.held is not None else None
        cost = self.measured.costs.get(name)
        if stage is not None and stage.inputs and cost is not None:
            before = self.rows(stage.inputs[0])
            return None if before is None else math.ceil(before * cost.rows_per_row)
        if isinstance(stage, SourceStage):
            return self._of_source(stage)
        if isinstance(stage, QuestionSource):
            described = self.rows(stage.prompts)
            return times(described, stage.spec.per_image)
        if stage is None or isinstance(stage, Source):
            return self._stacked(stage)
        return self.rows(stage.inputs[0])

    def _stacked(self, stage: Source | None) -> int | None:
        """Both tables of which one is made."""
        if stage is None or not stage.inputs:
            return None
        parts = [self.rows(name) for name in stage.inputs]
        return None if None in parts else sum(part or 0 for part in parts)

    def _of_source(self, stage: SourceStage) -> int | None:
        spec = stage.spec
        if not isinstance(spec, ImagineSource):
            return most(spec)
        images = times(self.rows("texts"), spec.rank.keep)
        asked = spec.instruct
        each = 1 + asked.questions_per_scene if asked.kind == "scenes" else asked.per_image
        rows = times(images, each)
        return spec.limit if rows is None or (spec.limit is not None and spec.limit < rows) else rows

    def _read(self, stage: Source | Stage) -> int | None:
        """How many rows a stage goes through, which may make of one several or none."""
        return self.rows(stage.inputs[0]) if stage.inputs else self.rows(stage.name)

    def _asks(self, stage: Source | Stage, rows: int | None, read: int | None, cost: Cost | None) -> Asks | None:
        if cost is not None and cost.counts is not None:
            return _counted(cost.counts, read)
        if isinstance(stage, SampleStage):
            ways = len(stage.spec.temperatures)
            answers = times(rows, ways * stage.spec.n)
            images = times(self.images(stage.reads, rows), ways)
            return Asks(times(rows, ways), images, None, answers, times(answers, stage.spec.max_tokens))
        if isinstance(stage, AskStage):
            return _judging(times(rows, self._calls(stage.asker)), stage.asker)
        if isinstance(stage, AskDetector):
            calls = times(rows, self._sampled()) if isinstance(stage.ask.asker, JudgeDetector) else None
            return _judging(calls, stage.ask.asker)
        if isinstance(stage, ContinueStage):
            answers = times(rows, self._sampled())
            return Asks(answers, answers if stage.rule.images else 0, None, answers, times(answers, stage._most))
        if isinstance(stage, CorrectStage) and stage.asked is not None:
            answers = times(rows, self._sampled())
            return Asks(
                answers, 0 if stage.spec.blind else answers, None, answers, times(answers, stage.spec.max_tokens)
            )
        if isinstance(stage, RestyleStage) and stage.asked is not None:
            requests = times(rows, self._sides())
            answers = times(requests, stage.spec.paraphrases)
            return Asks(requests, 0, None, answers, times(answers, stage.spec.max_tokens))
        if isinstance(stage, InstructStage) and isinstance(stage.spec, Written):
            source = self.plan.recipe.source
            calls = times(rows, source.rank.keep) if isinstance(source, ImagineSource) else None
            shown = 0 if stage.spec.shows == "text" else calls
            return Asks(calls, shown, None, calls, times(calls, stage.spec.max_tokens))
        return None

    def images(self, source: str, rows: int | None) -> int | None:
        """How many of ``rows`` prompts have images, at most; None where nobody has counted."""
        record = self.run.record(source)
        if isinstance(self.stages.get(source), BuiltSource | QuestionSource):
            return rows
        if rows is None or source in self.pending or record is None:
            return rows if isinstance(self.plan.recipe.source, _WITH_IMAGES) else None
        return min(rows, record.rows - record.extras.get("without_image", 0))

    def _calls(self, asker: Asker) -> int | None:
        """Questions about the candidates of a prompt, at most. How many claims a text makes nobody knows."""
        candidates = self._candidates()
        if candidates is None or not isinstance(asker, JudgeScorer):
            return None
        if asker.mode == "pointwise":
            return candidates * len(asker.criteria)
        pairs = math.comb(candidates, 2)
        return 2 * (pairs if asker.pairs_per_prompt is None else min(pairs, asker.pairs_per_prompt))

    def _sampled(self) -> int | None:
        """Answers to a prompt that models give, before anything is made of them."""
        specs = self.plan.recipe.sample.each()
        if any(isinstance(spec.engine, GivenOptions) for spec in specs):
            return None
        return sum(spec.n * len(spec.temperatures) for spec in specs)

    def _candidates(self) -> int | None:
        recipe, sampled = self.plan.recipe, self._sampled()
        if sampled is None or recipe.rewrite is not None:
            return None
        return 2 * sampled if recipe.sample.continuation is not None else sampled

    def _sides(self) -> int | None:
        """Texts of a prompt that may be worded anew."""
        rewrite = self.plan.recipe.rewrite
        assert rewrite is not None
        corrected = 1 if rewrite.correct is not None else 0
        injected = (1 + corrected) * rewrite.inject.per_text if rewrite.inject is not None else 0
        return times(self._sampled(), 1 + corrected + injected)


def _counted(counts: Mapping[str, float], rows: int | None) -> Asks:
    def all_of(name: str) -> int | None:
        return None if rows is None else round(counts.get(name, 0.0) * rows)

    requests, told = all_of(counted.REQUESTS), counts.get(counted.PROMPTS_TOLD)
    prompt = None
    if requests is not None and told:
        prompt = round(requests * counts[counted.PROMPT_TOKENS] / told)
    return Asks(requests, all_of(counted.IMAGES), prompt, all_of(counted.ANSWERS), all_of(counted.TOKENS))


def _judging(calls: int | None, asker: Asker) -> Asks:
    limit = getattr(asker, "max_tokens", None)
    blind = getattr(asker, "blind", False) or getattr(asker, "images", True) is False
    return Asks(calls, 0 if blind else calls, None, calls, times(calls, limit))


def most(spec: Any) -> int | None:
    """``most_entries``, or None where the source cannot be read: ``preflight`` says why."""
    try:
        return most_entries(spec)
    except (UserError, OSError):
        return None


def workers_of(spec: WorkerSpec | None, rows: int | None) -> int:
    """Processes that share the rows of a stage."""
    if spec is None:
        return (os.cpu_count() or 1) if rows is not None and rows > INLINE_ROWS else 1
    if spec.count == "auto":
        return machines().workers(spec.gpus, spec.cpus)
    return spec.count or max(1, int(sum(node.cpus for node in machines().nodes)))


def gpus_of(spec: WorkerSpec | None) -> float:
    """GPUs that the workers hold."""
    return 0.0 if spec is None or not spec.gpus or not machines().gpus else spec.gpus * workers_of(spec, None)


@cache
def machines() -> Hardware:
    """Where the workers would run; this machine, where its cluster cannot be asked."""
    if os.environ.get("RAY_ADDRESS") == "local":
        return this_machine()  # the Ray that a run would start here is no larger
    try:
        return hardware()
    except UserError:
        return this_machine()


def measured_speed(run: Run, stage: str, options: Mapping[str, Any]) -> Speed | None:
    """How fast a stage with these options was in this run, or else in the one beside it that had most to do."""
    earlier = alike(run, stage, options)
    return Speed.of(*earlier, run) if earlier is not None else None


def alike(run: Run, stage: str, options: Mapping[str, Any]) -> tuple[Run, Record] | None:
    """This run, or else the one beside it that had most to do, if it has finished a stage with these options."""
    now = _comparable(flat_options(options))
    record = run.record(stage)
    if record is not None and _tells(record, now):
        return run, record
    runs = [Run(run.path.parent / name) for name in files.names(run.path.parent)]
    records = [(beside, other) for beside in runs if (other := _record(beside, stage)) and _tells(other, now)]
    return max(records, key=lambda entry: (entry[1].rows, entry[0].path.name)) if records else None


def _bytes_per_row(run: Run, record: Record) -> float | None:
    if not files.is_local(run.path):
        return None
    size = sum(path.stat().st_size for path in run.folder(record.stage).glob("data-*.arrow"))
    return size / record.rows if size else None


def _part(rows: int | None, share: float | None) -> int | None:
    return None if rows is None or share is None else math.ceil(rows * share)


def _record(run: Run, stage: str) -> Record | None:
    try:
        return run.record(stage)
    except (StoreError, OSError):  # a file beside the run, or a neighbour's damage, is not this run's
        return None


def _tells(record: Record, now: Mapping[str, Any]) -> bool:
    return record.rows > 0 and record.seconds > record.start and record.finished and _comparable(record.options) == now


def _comparable(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key not in _NO_MATTER}


def times(*factors: int | None) -> int | None:
    """The product; None if one is not known."""
    return None if any(factor is None for factor in factors) else math.prod(factor or 0 for factor in factors)
