"""How much a run still has to do, from what is known without running it. What is not known is None, never 0."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.base import files
from pipeline.base.errors import StoreError
from pipeline.recipe.plan import Outlook, Plan
from pipeline.running.stage import Source, Stage
from pipeline.running.store import Record, Run, flat_options
from pipeline.sampling.config import GivenOptions
from pipeline.sampling.stage import SampleStage
from pipeline.scoring.ask import AskStage
from pipeline.sources.config import ScenesSource
from pipeline.sources.stage import BuiltSource, SourceStage
from reward.asking.judge import JudgeScorer

#: What may differ between two stages of one speed.
_NO_MATTER = ("seed", "on_policy", "dataset", "shard_size")


@dataclass(frozen=True)
class Speed:
    """Rows a second, without the time that models took to start, and the run that was so fast."""

    rows_per_second: float
    run: str


@dataclass(frozen=True)
class Estimate:
    """What a stage has left, each at most.

    ``requests`` are sent to a model, of which ``answers`` come, with ``tokens`` altogether; all three are None for a
    stage that asks none (``asks``) or where nobody knows. ``images`` is how many of ``rows`` show one.
    """

    stage: str
    rows: int | None
    asks: bool = False
    requests: int | None = None
    answers: int | None = None
    tokens: int | None = None
    images: int | None = None
    speed: Speed | None = None

    @property
    def seconds(self) -> float | None:
        return self.rows / self.speed.rows_per_second if self.rows is not None and self.speed is not None else None

    @property
    def line(self) -> str:
        """
        >>> Estimate("sample", 9, True, 9, 72, 4_608, 9, Speed(1.0, "a")).line
        'sample: 9 rows, 9 requests with 9 images and ? prompt tokens, 72 answers, 4,608 tokens; 9.0 s at 1 rows/s (a)'
        >>> Estimate("score", None).line
        'score: ? rows; time ?'
        """
        parts = [f"{_count(self.rows)} rows"]
        if self.asks:
            parts += [
                f"{_count(self.requests)} requests with {_count(self.images)} images and ? prompt tokens",
                f"{_count(self.answers)} answers",
                f"{_count(self.tokens)} tokens",
            ]
        return f"{self.stage}: {', '.join(parts)}; {duration(self.seconds, self.speed)}"


def estimates(plan: Plan, run: Run, outlooks: Sequence[Outlook]) -> list[Estimate]:
    """One for each stage from the source to pairs that would run, in their order."""
    pending = {outlook.stage: outlook for outlook in outlooks if outlook.reasons}
    stages = plan.generation()
    counts = _Counts(plan, run, {stage.name: stage for stage in stages}, frozenset(pending))
    return [counts.estimate(stage, pending[stage.name]) for stage in stages if stage.name in pending]


@dataclass(frozen=True)
class _Counts:
    plan: Plan
    run: Run
    stages: Mapping[str, Source | Stage]
    pending: frozenset[str]

    def estimate(self, stage: Source | Stage, outlook: Outlook) -> Estimate:
        total = self.rows(stage.name)
        share = 1 - outlook.done / outlook.shards if outlook.shards else 1.0
        left = None if total is None else math.ceil(total * share)
        speed = measured(self.run, stage.name, stage.options())
        if isinstance(stage, SampleStage):
            times = len(stage.spec.temperatures)
            tokens = _times(left, times * stage.spec.n, stage.spec.max_tokens)
            answers = _times(left, times * stage.spec.n)
            images = _times(self.images(stage.reads, left), times)
            return Estimate(stage.name, left, True, _times(left, times), answers, tokens, images, speed)
        if isinstance(stage, AskStage):
            calls = _times(left, self._calls(stage))
            blind = isinstance(stage.asker, JudgeScorer) and stage.asker.blind
            tokens = _times(calls, stage.asker.max_tokens) if isinstance(stage.asker, JudgeScorer) else None
            return Estimate(stage.name, left, True, calls, calls, tokens, 0 if blind else calls, speed)
        worker = None if isinstance(stage, Source) else stage.worker
        return Estimate(stage.name, left, worker is not None and stage.name.startswith("sample"), speed=speed)

    def rows(self, name: str) -> int | None:
        """Rows of a table: counted where it holds, else at most as many as the recipe lets in."""
        stage, record = self.stages.get(name), self.run.record(name)
        if name not in self.pending and record is not None and record.finished:
            return record.rows
        if isinstance(stage, SourceStage):
            spec = stage.spec
            drawn = spec.scenes * (1 + spec.questions_per_scene) if isinstance(spec, ScenesSource) else None
            return min((bound for bound in (drawn, spec.limit) if bound is not None), default=None)
        if isinstance(stage, BuiltSource):
            return self.plan.held.most if self.plan.held is not None else None
        if stage is None or isinstance(stage, Source):
            return None
        return self.rows(stage.inputs[0])

    def images(self, source: str, rows: int | None) -> int | None:
        """How many of ``rows`` prompts have images, at most; None where nobody has counted."""
        record = self.run.record(source)
        if isinstance(self.stages.get(source), BuiltSource):
            return rows
        if rows is None or source in self.pending or record is None:
            return rows if isinstance(self.plan.recipe.source, ScenesSource) else None
        return min(rows, record.rows - record.extras.get("without_image", 0))

    def _calls(self, stage: AskStage) -> int | None:
        """Questions about the candidates of a prompt, at most. How many claims a text makes nobody knows."""
        candidates, judge = self._candidates(), stage.asker
        if candidates is None or not isinstance(judge, JudgeScorer):
            return None
        if judge.mode == "pointwise":
            return candidates * len(judge.criteria)
        pairs = math.comb(candidates, 2)
        return 2 * (pairs if judge.pairs_per_prompt is None else min(pairs, judge.pairs_per_prompt))

    def _candidates(self) -> int | None:
        recipe = self.plan.recipe
        specs = recipe.sample.each()
        if recipe.rewrite is not None or any(isinstance(spec.engine, GivenOptions) for spec in specs):
            return None
        sampled = sum(spec.n * len(spec.temperatures) for spec in specs)
        return 2 * sampled if recipe.sample.continuation is not None else sampled


def measured(run: Run, stage: str, options: Mapping[str, Any]) -> Speed | None:
    """How fast a stage with these options was in this run, or else in the one beside it that had most to do."""
    now = _comparable(flat_options(options))
    own = run.record(stage)
    if own is not None and _tells(own, now):
        return Speed(own.rows / own.seconds, "this run")
    beside = [(name, _record(Run(run.path.parent / name), stage)) for name in files.names(run.path.parent)]
    fit = [(record.rows, name, record) for name, record in beside if record is not None and _tells(record, now)]
    if not fit:
        return None
    _, name, record = max(fit, key=lambda entry: entry[:2])
    return Speed(record.rows / record.seconds, name)


def _record(run: Run, stage: str) -> Record | None:
    try:
        return run.record(stage)
    except (StoreError, OSError):  # a file beside the run, or a neighbour's damage, is not this run's
        return None


def _tells(record: Record, now: Mapping[str, Any]) -> bool:
    return record.rows > 0 and record.seconds > 0 and record.finished and _comparable(record.options) == now


def _comparable(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in options.items() if key not in _NO_MATTER}


def duration(seconds: float | None, speed: Speed | None, unit: str = "rows") -> str:
    """
    >>> duration(7200.0, Speed(2.0, "this run")), duration(None, None)
    ('2.0 h at 2 rows/s (this run)', 'time ?')
    """
    if seconds is None or speed is None:
        return "time ?"
    for size, name in ((3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.1f} {name} at {speed.rows_per_second:.3g} {unit}/s ({speed.run})"
    return f"{seconds:.1f} s at {speed.rows_per_second:.3g} {unit}/s ({speed.run})"


def _times(*factors: int | None) -> int | None:
    return None if any(factor is None for factor in factors) else math.prod(factor or 0 for factor in factors)


def _count(number: int | None) -> str:
    return "?" if number is None else f"{number:,}"
