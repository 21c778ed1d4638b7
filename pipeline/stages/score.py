"""Let every scorer look at every candidate. Values are stored raw; only pairing applies thresholds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import columns, images, models
from pipeline.config.score import Score
from pipeline.errors import ConfigError, PipelineError
from pipeline.stages import WorkerSpec
from pipeline.tables import OK, SCORES, failed
from reward import Scorer
from reward.batch import Batch, ColumnScorer
from reward.vocabulary import Vocabulary

_READ = ("images", "prompt", "facts")


@dataclass(frozen=True)
class ScoreStage:
    spec: Score

    name = "score"
    version = 1
    inputs = ("source", "sample")
    schema = SCORES

    @property
    def worker(self) -> WorkerSpec | None:
        """Formulas run where the driver runs; a model gets processes of its own."""
        if "clip" not in self.spec.scorers:
            return None
        return WorkerSpec(
            f"clip:{self.spec.clip.model}", OpenScorers(self.spec), gpus=1.0, count=self.spec.clip.workers
        )

    def options(self) -> dict[str, Any]:
        return {"scorers": {scorer.name: scorer.version for scorer in open_scorers(self.spec)}}

    def process(self, model: Sequence[Scorer] | None, tables: Mapping[str, pa.Table]) -> pa.Table:
        scorers = model if model is not None else open_scorers(self.spec)
        sample = tables["sample"]
        fine = columns.ok(sample)
        good = sample.filter(pa.array(fine))
        prompts = columns.aligned(tables["source"].select(["id", *_READ]), columns.whole(good["id"]))
        scored = _score(scorers, prompts, good["candidates"])
        bad = sample.filter(pa.array(~fine)).select(["id", *OK])
        if not bad.num_rows:
            return scored
        place = np.argsort(np.argsort(~fine, kind="stable"))  # of each row, with the good ones first
        return pa.concat_tables([scored, _with_scores(bad, None)]).take(pa.array(place))

    def extras(self, table: pa.Table) -> dict[str, int]:
        return {}


@dataclass(frozen=True)
class OpenScorers:
    spec: Score

    def __call__(self) -> list[Scorer]:
        return open_scorers(self.spec)


def open_scorers(spec: Score) -> list[Scorer]:
    """The scorers of a recipe, in its order. Models are loaded when they are first used.

    Raises:
        PipelineError: a model or a vocabulary is missing or wrong.
    """
    return [_open(name, spec) for name in spec.scorers]


def _open(name: str, spec: Score) -> Scorer:
    if name == "objects":
        from reward.objects import ObjectScorer

        return ObjectScorer(vocabulary(spec.objects.vocabulary))
    if name == "correctness":
        from reward.correctness import CorrectnessScorer

        return CorrectnessScorer()
    from reward.clip import ClipScorer

    # An architecture is told by its weights; everything else is a folder or a built-in name.
    model = spec.clip.model if spec.clip.pretrained else models.resolve(spec.clip.model)
    try:
        return ClipScorer(model, spec.clip.pretrained, spec.clip.batch_size, "auto")
    except ValueError as error:
        raise ConfigError(f"score.clip: {error}") from error


def vocabulary(name: str) -> Vocabulary:
    if name == "scenes":
        from pipeline.scenes.vocabulary import VOCABULARY

        return VOCABULARY
    path = Path(name)
    try:
        text = path.read_text(encoding="utf-8")
        # The version is the content: a score made with other synonyms is another score.
        return Vocabulary(path.stem, models.digest(text), json.loads(text))
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(
            f"score.objects.vocabulary: cannot use {name!r}: {error}",
            'give `scenes` or a JSON file of {"surface form": "object"}',
        ) from error


def _score(scorers: Sequence[Scorer], prompts: pa.Table, candidates: pa.ChunkedArray) -> pa.Table:
    """The scores of prompts and their candidates (aligned). A row that breaks a scorer fails alone."""
    count = prompts.num_rows
    status = {name: pa.array([value] * count, pa.string()) for name, value in OK.items()}
    try:
        scores = _columns(scorers, prompts, candidates)
    except PipelineError:
        raise
    except Exception as error:  # scorers run other people's models: any error is one row's, until shown otherwise
        if count > 1:
            alone = [_score(scorers, prompts.slice(i, 1), candidates.slice(i, 1)) for i in range(count)]
            return pa.concat_tables(alone)
        scores = pa.nulls(count, SCORES.field("scores").type)
        status = {name: pa.array([value]) for name, value in failed(type(error).__name__, str(error)).items()}
    return _with_scores(pa.table({"id": prompts["id"], **status}), scores)


def _columns(scorers: Sequence[Scorer], prompts: pa.Table, candidates: pa.ChunkedArray) -> pa.ListArray:
    """The ``scores`` column: for every prompt one struct per score, in the scorers' order."""
    sizes = columns.counts(candidates)
    texts = columns.whole(columns.items(candidates, "text"))
    if texts.null_count:
        raise ValueError("a candidate has no text")
    batch = Batch(columns.whole(prompts["facts"]), texts, columns.rows(sizes))
    rows: list[dict[str, Any]] | None = None
    named: list[tuple[str, str, pa.Array]] = []  # name, version, one value per text
    for scorer in scorers:
        if isinstance(scorer, ColumnScorer):
            found = scorer.score_columns(batch)
        else:
            rows = rows if rows is not None else _rows(prompts, candidates)
            found = {
                name: pa.array([value for row in values for value in row], pa.float64())
                for name, values in scorer.score(rows).items()
            }
        named += [(name, scorer.version, values) for name, values in found.items()]
    return _transposed(named, sizes)


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
    return [
        {**row, "images": [images.load(image) for image in row["images"]], "candidates": texts}
        for row, texts in zip(prompts.to_pylist(), candidates.to_pylist(), strict=True)
    ]


def _with_scores(rows: pa.Table, scores: pa.Array | None) -> pa.Table:
    scores = pa.nulls(rows.num_rows, SCORES.field("scores").type) if scores is None else scores
    return rows.append_column("scores", scores).select(SCORES.names).cast(SCORES)
