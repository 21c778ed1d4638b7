"""Let every scorer look at every candidate. Values are stored raw; only pairing applies thresholds."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import models
from pipeline.config.score import Score
from pipeline.errors import ConfigError, PipelineError
from pipeline.stages import WorkerSpec
from pipeline.tables import OK, SCORES, failed
from reward import Scorer
from reward.vocabulary import Vocabulary


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
        prompts = {row["id"]: row for row in tables["source"].to_pylist()}
        rows = tables["sample"].to_pylist()
        good = [
            {
                "id": row["id"],
                "images": [image["bytes"] for image in prompts[row["id"]]["images"]],
                "prompt": prompts[row["id"]]["prompt"],
                "facts": prompts[row["id"]]["facts"],
                "candidates": row["candidates"],
            }
            for row in rows
            if row["status"] == "ok"
        ]
        scored = {row["id"]: row for row in _score(scorers, good)}
        out = [scored.get(row["id"]) or {"id": row["id"], **failed(row["error_type"], row["error"])} for row in rows]
        return pa.Table.from_pylist(out, schema=SCORES)

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


def _score(scorers: Sequence[Scorer], rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row of the scores table per row. A row that breaks a scorer fails alone."""
    if not rows:
        return []
    try:
        named = [(name, scorer.version, values) for scorer in scorers for name, values in scorer.score(rows).items()]
    except PipelineError:
        raise
    except Exception as error:  # scorers run other people's models: any error is one row's, until shown otherwise
        if len(rows) > 1:
            return [out for row in rows for out in _score(scorers, [row])]
        return [{"id": rows[0]["id"], **failed(type(error).__name__, str(error))}]
    return [
        {"id": row["id"], "scores": [{"name": n, "version": v, "values": values[i]} for n, v, values in named], **OK}
        for i, row in enumerate(rows)
    ]
