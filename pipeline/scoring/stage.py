"""Let every scorer look at every candidate. Values are stored raw; only pairing applies thresholds.

Formulas, and what follows from stored verdicts, run in ``ScoreStage``. A scorer with a model in its process has a stage
of its own before it, and a model that is asked has ``pipeline.scoring.ask``; ``ScoreStage`` puts all together.

A scorer that fails on a row leaves nulls there and its reason in ``unknown``; pairing asks for it where the score is
weighed. A value that is no finite number is null as well: it is not known.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.base.tables import SCORES
from pipeline.running.stage import Stage, WorkerSpec
from pipeline.sampling.config import Sample
from pipeline.scoring.ask import AskStage
from pipeline.scoring.config import Score
from pipeline.scoring.score_columns import Answered, Part, Stored, all_notes, process
from pipeline.scoring.scorers import ASKED, OpenScorers, in_worker, open_asker, open_scorers
from reward.scorers.protocol import READS_EVERY_TEXT, Scorer, gives

#: By a scorer that does not read every text to its end: 1 for one that it cut.
CUT = "clip.cut"


@dataclass(frozen=True)
class ScoreStage:
    """All scores of the candidates, in the recipe's order. ``asked`` are the stages that asked for verdicts."""

    spec: Score
    asked: tuple[AskStage, ...] = ()

    name = "score"
    schema = SCORES
    worker = None

    @property
    def version(self) -> int:
        # Since 3, texts that a model could not read are told. Of other scorers nothing has changed.
        return 3 if set(READS_EVERY_TEXT) & set(self.spec.scorers) else 2

    @property
    def inputs(self) -> tuple[str, ...]:
        stored = (model_stage(self.spec.name_of(name)) for name in self.spec.scorers if in_worker(name, self.spec))
        return ("source", "sample", *(stage.name for stage in self.asked), *stored)

    def options(self) -> dict[str, Any]:
        versions = {scorer.name: scorer.version for scorer in open_scorers(_without(self.spec, ASKED))}
        askers = {stage.asker.name: stage.scored_as for stage in self.asked}
        return {"scorers": {name: {**versions, **askers}[name] for name in self.spec.names}}

    def process(self, model: Sequence[Part] | None, tables: Mapping[str, pa.Table]) -> pa.Table:
        return process(model if model is not None else self._parts(), tables, self.inputs[2:])

    def extras(self, table: pa.Table) -> dict[str, int]:
        """For how many rows a scorer does not know a value, by scorer and error type."""
        return dict(Counter(f"{note['scorer']}.{note['error_type']}" for note in all_notes(table)))

    def _parts(self) -> list[Part]:
        elsewhere = [name for name in self.spec.scorers if name in ASKED or in_worker(name, self.spec)]
        formulas = {scorer.name: scorer for scorer in open_scorers(_without(self.spec, elsewhere))}
        answered = {stage.asker.name: Answered(stage.name, stage.asker, stage.scored_as) for stage in self.asked}
        parts: Mapping[str, Part] = {**formulas, **answered}
        return [parts[name] if name in parts else Stored(model_stage(name), name) for name in self.spec.names]


@dataclass(frozen=True)
class ModelScoreStage:
    """The scores of the one scorer of ``spec``, which has a model in its process. ``dispensable``: nobody weighs
    them."""

    spec: Score
    dispensable: bool = False

    inputs = ("source", "sample")
    schema = SCORES

    @property
    def version(self) -> int:
        # Since 2, it is told which texts CLIP cut. What the others say is what it was.
        return 2 if self._scorer == "clip" else 1

    @property
    def name(self) -> str:
        return model_stage(self._scorer)

    @property
    def worker(self) -> WorkerSpec:
        group = getattr(self.spec, self._scorer, None)
        if group is None:  # another's
            return WorkerSpec(f"scorer:{self._scorer}", OpenScorers(self.spec), gpus=1.0, count="auto")
        return WorkerSpec(
            f"{self._scorer}:{group.model}",
            OpenScorers(self.spec),
            gpus=group.gpus,
            count=group.workers,
            model=group.model,
        )

    def options(self) -> dict[str, Any]:
        return {"scorers": {scorer.name: scorer.version for scorer in open_scorers(self.spec)}}

    def process(self, model: Sequence[Scorer], tables: Mapping[str, pa.Table]) -> pa.Table:
        return process(model, tables, (), alone=True)

    def extras(self, table: pa.Table) -> dict[str, int]:
        """Of a scorer that tells how far it read: how many ``texts`` it read, and how many of them were ``cut``."""
        cut = [
            value
            for row in table["scores"].to_pylist()
            for score in row or ()
            if score["name"] == CUT
            for value in score["values"]
            if value is not None
        ]
        length_counts = {"texts": len(cut), "cut": int(sum(cut))} if cut else {}
        return length_counts | dict(Counter(f"{note['scorer']}.{note['error_type']}" for note in all_notes(table)))

    @property
    def _scorer(self) -> str:
        (name,) = self.spec.names
        return name


def stages(spec: Score, sampled: Sequence[Sample], seed: int, weighed: Collection[str] | None = None) -> list[Stage]:
    """The stages that a recipe's scores take. ``sampled`` are the models whose candidates are scored, in the order in
    which they are asked: a judge that shares its engine with the last of them comes first. ``weighed`` are the scores
    that pairing goes by (None: any): a scorer of none of them may fail on as many rows as it likes.

    Raises:
        ConfigError: a vocabulary is missing or wrong.
    """

    def idle(scorer: str) -> bool:
        return weighed is not None and not any(gives(scorer, name) for name in weighed)

    askers = tuple(_ask_stage(name, spec, sampled, seed, idle(name)) for name in spec.scorers if name in ASKED)
    by_model = [
        ModelScoreStage(_only(spec, name), idle(spec.name_of(name))) for name in spec.scorers if in_worker(name, spec)
    ]
    order = sorted(askers, key=lambda stage: _engine(stage.spec) != _engine(sampled[-1]))
    return [*order, *by_model, ScoreStage(spec, askers)]


def asks(spec: Score, sample: Sample, sampled: Sequence[Sample]) -> bool:
    """Whether the sampled model ``sample`` is asked for verdicts as well, through the same engine."""
    groups = [group for name, group in (("judge", spec.judge), ("claims", spec.claims)) if name in spec.scorers]
    return any(_engine(group.spec(sampled)) == _engine(sample) for group in groups if group is not None)


def model_stage(scorer: str) -> str:
    """
    >>> model_stage("clip")
    'score-clip'
    """
    return f"score-{scorer}"


def _ask_stage(name: str, spec: Score, sampled: Sequence[Sample], seed: int, dispensable: bool) -> AskStage:
    group = spec.judge if name == "judge" else spec.claims
    assert group is not None  # or the recipe would not have been accepted
    return AskStage(group.spec(sampled), open_asker(name, spec), seed, dispensable)


def _engine(spec: Sample) -> tuple[Any, ...]:
    """What must be equal for two models to be asked by one worker."""
    return spec.model, spec.revision, spec.chat_template, spec.max_image_pixels, spec.engine


def _only(spec: Score, name: str) -> Score:
    return _without(spec, [other for other in spec.scorers if other != name])


def _without(spec: Score, names: Collection[str]) -> Score:
    kept = tuple(name for name in spec.scorers if name not in names)
    options = {name: value for name, value in spec.options.items() if name in kept}
    return spec.model_copy(update={"scorers": kept, "options": options})
