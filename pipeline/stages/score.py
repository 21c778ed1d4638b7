"""Let every scorer look at every candidate. Values are stored raw; only pairing applies thresholds.

Formulas, and what follows from stored verdicts, run in ``ScoreStage``. A scorer with a model in its process has a stage
of its own before it, and a model that is asked has ``pipeline.stages.ask``; ``ScoreStage`` puts all together.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import columns, images
from pipeline.config.sample import Sample
from pipeline.config.score import Score
from pipeline.errors import PipelineError
from pipeline.scorers import ASKED, MODELS, OpenScorers, open_asker, open_scorers
from pipeline.stages import Stage, WorkerSpec
from pipeline.stages.ask import AskStage, read_verdicts
from pipeline.tables import OK, SCORES, failed
from reward import Asker, Scorer
from reward.batch import Batch, ColumnScorer

_READ = ("images", "prompt", "facts")
#: A worker has two shards at a time, so that one is read while the other is scored. Scorers run other people's code: a
#: tokenizer, for one, keeps how it pads between two calls, and two threads would pad for each other.
_TURN = threading.Lock()


@dataclass(frozen=True)
class ScoreStage:
    """All scores of the candidates, in the recipe's order. ``asked`` are the stages that asked for verdicts."""

    spec: Score
    asked: tuple[AskStage, ...] = ()

    name = "score"
    version = 1
    schema = SCORES
    worker = None

    @property
    def inputs(self) -> tuple[str, ...]:
        stored = (model_stage(name) for name in self.spec.scorers if name in MODELS)
        return ("source", "sample", *(stage.name for stage in self.asked), *stored)

    def options(self) -> dict[str, Any]:
        versions = {scorer.name: scorer.version for scorer in open_scorers(_without(self.spec, ASKED))}
        asked = {stage.asker.name: stage.scored_as for stage in self.asked}
        return {"scorers": {name: {**versions, **asked}[name] for name in self.spec.scorers}}

    def process(self, model: Sequence[_Part] | None, tables: Mapping[str, pa.Table]) -> pa.Table:
        return _process(model if model is not None else self._parts(), tables, self.inputs[2:])

    def extras(self, table: pa.Table) -> dict[str, int]:
        return {}

    def _parts(self) -> list[_Part]:
        formulas = {scorer.name: scorer for scorer in open_scorers(_without(self.spec, (*MODELS, *ASKED)))}
        asked = {stage.asker.name: _Answered(stage.name, stage.asker, stage.scored_as) for stage in self.asked}
        parts: Mapping[str, _Part] = {**formulas, **asked}
        return [parts[name] if name in parts else _Stored(model_stage(name)) for name in self.spec.scorers]


@dataclass(frozen=True)
class ModelScoreStage:
    """The scores of the one scorer of ``spec``, which has a model in its process."""

    spec: Score

    version = 1
    inputs = ("source", "sample")
    schema = SCORES

    @property
    def name(self) -> str:
        return model_stage(self._scorer)

    @property
    def worker(self) -> WorkerSpec:
        group = getattr(self.spec, self._scorer)  # it is there, or the recipe would not have been accepted
        return WorkerSpec(f"{self._scorer}:{group.model}", OpenScorers(self.spec), gpus=1.0, count=group.workers)

    def options(self) -> dict[str, Any]:
        return {"scorers": {scorer.name: scorer.version for scorer in open_scorers(self.spec)}}

    def process(self, model: Sequence[Scorer], tables: Mapping[str, pa.Table]) -> pa.Table:
        return _process(model, tables, ())

    def extras(self, table: pa.Table) -> dict[str, int]:
        return {}

    @property
    def _scorer(self) -> str:
        (name,) = self.spec.scorers
        return name


def stages(spec: Score, sampled: Sequence[Sample], seed: int) -> list[Stage]:
    """The stages that a recipe's scores take. ``sampled`` are the models whose candidates are scored, in the order in
    which they are asked: a judge that shares its engine with the last of them comes first.

    Raises:
        ConfigError: a vocabulary is missing or wrong.
    """
    asked = tuple(_ask_stage(name, spec, sampled, seed) for name in spec.scorers if name in ASKED)
    by_model = [ModelScoreStage(_only(spec, name)) for name in spec.scorers if name in MODELS]
    order = sorted(asked, key=lambda stage: _engine(stage.spec) != _engine(sampled[-1]))
    return [*order, *by_model, ScoreStage(spec, asked)]


def asks(spec: Score, one: Sample, sampled: Sequence[Sample]) -> bool:
    """Whether the sampled model ``one`` is asked for verdicts as well, through the same engine."""
    groups = [group for name, group in (("judge", spec.judge), ("claims", spec.claims)) if name in spec.scorers]
    return any(_engine(group.spec(sampled)) == _engine(one) for group in groups if group is not None)


def model_stage(scorer: str) -> str:
    """
    >>> model_stage("clip")
    'score-clip'
    """
    return f"score-{scorer}"


def _ask_stage(name: str, spec: Score, sampled: Sequence[Sample], seed: int) -> AskStage:
    group = spec.judge if name == "judge" else spec.claims
    assert group is not None  # or the recipe would not have been accepted
    return AskStage(group.spec(sampled), open_asker(name, spec), seed)


def _engine(spec: Sample) -> tuple[Any, ...]:
    """What must be equal for two models to be asked by one worker."""
    return spec.model, spec.revision, spec.chat_template, spec.max_image_pixels, spec.engine


def _only(spec: Score, name: str) -> Score:
    return spec.model_copy(update={"scorers": (name,)})


def _without(spec: Score, names: Sequence[str]) -> Score:
    return spec.model_copy(update={"scorers": tuple(name for name in spec.scorers if name not in names)})


@dataclass(frozen=True)
class _Stored:
    """The scores that the stage ``table`` computed."""

    table: str


@dataclass(frozen=True)
class _Answered:
    """The scores that follow from the verdicts in ``table``."""

    table: str
    asker: Asker
    version: str


_Part = Scorer | _Stored | _Answered


def _process(parts: Sequence[_Part], tables: Mapping[str, pa.Table], further: Sequence[str]) -> pa.Table:
    """One row per row of ``sample``. A row that failed in one of the tables, ``further`` ones included, has failed."""
    sample = tables["sample"]
    ids = columns.whole(sample["id"])
    inputs = [sample, *(columns.aligned(tables[name], ids) for name in further)]
    fine = np.all([columns.ok(table) for table in inputs], axis=0)
    good = pa.array(fine)
    prompts = columns.aligned(tables["source"].select(["id", *_READ]), ids.filter(good))
    for name, table in zip(further, inputs[1:], strict=True):
        # Beside the prompts' own columns: what is done to their rows is then done to these.
        prompts = prompts.append_column(name, columns.whole(table.column(1).filter(good)))
    scored = _score(parts, prompts, sample["candidates"].filter(good))
    if fine.all():
        return scored
    bad = [table.filter(pa.array(~columns.ok(table))).select(["id", *OK]) for table in inputs]
    # A row may have failed in several tables; the first of them says why.
    return columns.aligned(pa.concat_tables([scored, *(_with_scores(one, None) for one in bad)]), ids)


def _score(parts: Sequence[_Part], prompts: pa.Table, candidates: pa.ChunkedArray) -> pa.Table:
    """The scores of prompts and their candidates (aligned). A row that breaks a scorer fails alone."""
    count = prompts.num_rows
    status = {name: pa.array([value] * count, pa.string()) for name, value in OK.items()}
    try:
        scores = _columns(parts, prompts, candidates)
    except PipelineError:
        raise
    except Exception as error:  # scorers run other people's models: any error is one row's, until shown otherwise
        if count > 1:
            alone = [_score(parts, prompts.slice(i, 1), candidates.slice(i, 1)) for i in range(count)]
            return pa.concat_tables(alone)
        scores = pa.nulls(count, SCORES.field("scores").type)
        status = {name: pa.array([value]) for name, value in failed(type(error).__name__, str(error)).items()}
    return _with_scores(pa.table({"id": prompts["id"], **status}), scores)


def _columns(parts: Sequence[_Part], prompts: pa.Table, candidates: pa.ChunkedArray) -> pa.ListArray:
    """The ``scores`` column: for every prompt one struct per score, in the parts' order."""
    sizes = columns.counts(candidates)
    texts = columns.whole(columns.items(candidates, "text"))
    if texts.null_count:
        raise ValueError("a candidate has no text")
    batch = Batch(columns.whole(prompts["facts"]), texts, columns.rows(sizes))
    rows: list[dict[str, Any]] | None = None
    named: list[tuple[str, str, pa.Array]] = []  # name, version, one value per text
    done: list[pa.ListArray] = []
    for part in parts:
        if isinstance(part, _Stored):
            done += [_transposed(named, sizes)] if named else []
            named = []
            done.append(columns.whole(prompts[part.table]))
            continue
        if isinstance(part, ColumnScorer):
            found = part.score_columns(batch)
        elif isinstance(part, _Answered):
            found = _answered(part, prompts, candidates)
        else:
            rows = rows if rows is not None else _rows(prompts, candidates)
            with _TURN:
                found = _flat(part.score(rows))
        named += [(name, part.version, values) for name, values in found.items()]
    done += [_transposed(named, sizes)] if named or not done else []
    return done[0] if len(done) == 1 else columns.joined(done)


def _answered(part: _Answered, prompts: pa.Table, candidates: pa.ChunkedArray) -> dict[str, pa.Array]:
    verdicts = prompts[part.table].to_pylist()
    plain = prompts.select(["id", "prompt", "facts"]).to_pylist()
    found: dict[str, list[list[float | None]]] = {}
    for row, texts, said in zip(plain, candidates.to_pylist(), verdicts, strict=True):
        scores = part.asker.scores({**row, "images": [], "candidates": texts}, read_verdicts(said))
        for name, values in scores.items():
            found.setdefault(name, []).append(values)
    return _flat(found)


def _flat(scores: Mapping[str, Sequence[Sequence[float | None]]]) -> dict[str, pa.Array]:
    """From a list of values per row to one array over all texts."""
    return {name: pa.array([value for row in values for value in row], pa.float64()) for name, values in scores.items()}


def _transposed(named: Sequence[tuple[str, str, pa.Array]], sizes: columns.Ints) -> pa.ListArray:
    """From one array per score over all texts to one struct per prompt and score."""
    prompts, texts, scores = len(sizes), int(sizes.sum()), len(named)
    if not named:
        return columns.lists(np.zeros(prompts, np.int64), pa.array([], SCORES.field("scores").type.value_type))
    first = columns.starts(sizes)[:-1, None] + texts * np.arange(scores)
    each = np.repeat(sizes, scores)
    every = pa.concat_arrays([columns.whole(values) for _, _, values in named])
    values = columns.lists(each, every.take(pa.array(columns.ranges(first.ravel(), each))))
    which = pa.array(np.tile(np.arange(scores), prompts))
    names, versions = (pa.array([one[i] for one in named], pa.string()).take(which) for i in (0, 1))
    fields = list(SCORES.field("scores").type.value_type)
    return columns.lists(
        np.full(prompts, scores, np.int64), pa.StructArray.from_arrays([names, versions, values], fields=fields)
    )


def _rows(prompts: pa.Table, candidates: pa.ChunkedArray) -> list[dict[str, Any]]:
    """What a scorer reads that looks at one row after the other (``reward.Row``)."""
    own = prompts.select(["id", *_READ]).to_pylist()
    return [
        {
            **row,
            "images": [images.load(image) for image in row["images"]],
            "paths": [image["path"] for image in row["images"]],
            "candidates": texts,
        }
        for row, texts in zip(own, candidates.to_pylist(), strict=True)
    ]


def _with_scores(rows: pa.Table, scores: pa.Array | None) -> pa.Table:
    scores = pa.nulls(rows.num_rows, SCORES.field("scores").type) if scores is None else scores
    return rows.append_column("scores", scores).select(SCORES.names).cast(SCORES)
