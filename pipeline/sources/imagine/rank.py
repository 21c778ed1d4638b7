"""Keep, of the images of each text, those that fit it. The others stay in the table, with their scores and reasons."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from pipeline.base import columns
from pipeline.base import model_names as models
from pipeline.base.errors import ConfigError, PipelineError
from pipeline.base.tables import OK, RANKED, error_status, stage_table
from pipeline.running.stage import WorkerSpec
from pipeline.scenes.drawn import shows
from pipeline.sources.imagine.config import Rank

NO_IMAGE, NO_SCORE, BELOW, OUTRANKED = "no_image", "no_score", "below_threshold", "outranked"


class ImageScorer(Protocol):
    """Raw scores of several images for one text each; larger is better."""

    @property
    def version(self) -> str: ...

    def score_images(self, rows: Sequence[tuple[str, Sequence[bytes]]]) -> list[list[float]]: ...


@runtime_checkable
class Cuts(Protocol):
    """A scorer that tells which texts it reads in part; None where it reads none."""

    def cut(self, texts: Sequence[str]) -> list[bool | None]: ...


@dataclass(frozen=True)
class RankStage:
    spec: Rank

    name = "rank"
    version = 2
    inputs = ("imagine",)
    schema = RANKED

    @property
    def worker(self) -> WorkerSpec:
        return WorkerSpec(
            f"{self.spec.scorer}:{self.spec.model}",
            OpenRanker(self.spec),
            gpus=self.spec.gpus,
            count=self.spec.workers,
            model=self.spec.model,
        )

    def options(self) -> dict[str, Any]:
        scorer = {self.spec.scorer: open_scorer(self.spec).version}
        return {"scorer": scorer, "threshold": self.spec.threshold, "keep": self.spec.keep}

    def process(self, model: ImageScorer, tables: Mapping[str, pa.Table]) -> pa.Table:
        rows = tables["imagine"].to_pylist()
        good = [row for row in rows if row["status"] == "ok"]
        made = iter(self._rank(model, good))
        ranked = [next(made) if row["status"] == "ok" else _failed_row(row, row) for row in rows]
        return stage_table(ranked, RANKED)

    def extras(self, table: pa.Table) -> dict[str, int]:
        """How many ``images`` there were and how many were ``kept``; of those of which it is known, how many show what
        their text says (``known_*``, ``faithful_*``), before ranking and after. Of how many ``texts`` the scorer tells
        whether it read all of them, and how many it ``cut``."""
        cuts = columns.whole(table["cut"]).drop_null().to_pylist()
        read = {"texts": len(cuts), "cut": sum(cuts)} if cuts else {}
        counts = dict.fromkeys(
            ("images", "kept", "known_before", "faithful_before", "known_after", "faithful_after"), 0
        )
        for row in table.select(["kept", "reasons", "faithful"]).to_pylist():
            if row["kept"] is None:
                continue
            before = [truth for truth, why in zip(row["faithful"], row["reasons"], strict=True) if why != NO_IMAGE]
            after = [row["faithful"][at] for at in row["kept"]]
            counts["images"] += len(before)
            counts["kept"] += len(after)
            for when, truths in (("before", before), ("after", after)):
                counts[f"known_{when}"] += sum(truth is not None for truth in truths)
                counts[f"faithful_{when}"] += sum(truth is True for truth in truths)
        always = ("images", "kept")
        return {name: count for name, count in counts.items() if counts["known_before"] or name in always} | read

    def _rank(self, scorer: ImageScorer, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """A row that breaks the scorer fails alone."""
        pairs = [
            (row["text"], [image["bytes"] for image in row["images"] if image["bytes"] is not None]) for row in rows
        ]
        try:
            ranking = scorer.score_images(pairs) if pairs else []
            texts = [text for text, _ in pairs]
            cut = scorer.cut(texts) if isinstance(scorer, Cuts) else [None] * len(texts)
        except PipelineError:
            raise
        except Exception as error:  # other people's models: any error is one row's, until shown otherwise
            if len(rows) > 1:
                return [ranked for row in rows for ranked in self._rank(scorer, [row])]
            return [_failed_row(rows[0], error_status(type(error).__name__, str(error)))]
        return [self._row(row, scores, read) for row, scores, read in zip(rows, ranking, cut, strict=True)]

    def _row(self, row: Mapping[str, Any], scores: Sequence[float], cut: bool | None) -> dict[str, Any]:
        given = iter(scores)
        images = row["images"]
        aligned = [None if image["bytes"] is None else next(given) for image in images]
        kept, reasons = choose(aligned, self.spec.keep, self.spec.threshold)
        why = [NO_IMAGE if image["bytes"] is None else reason for image, reason in zip(images, reasons, strict=True)]
        faithful = [shows(row["text"], image["facts"]) for image in images]
        made = {"scores": aligned, "kept": kept, "reasons": why, "faithful": faithful, "cut": cut}
        return {"id": row["id"], **made, **OK}


def choose(
    scores: Sequence[float | None], keep: int, threshold: float | None = None
) -> tuple[list[int], list[str | None]]:
    """Indices of the images to keep, best first, and why each of the others is rejected (None for one that is kept).

    Of equal scores the earlier one goes first. An image without a score, or with one that is no finite number, is never
    kept.

    >>> choose([0.2, 0.5, 0.4, None], keep=1, threshold=0.3)
    ([1], ['below_threshold', None, 'outranked', 'no_score'])
    """
    reasons: list[str | None] = []
    for score in scores:
        good = score is not None and math.isfinite(score)
        low = good and threshold is not None and score is not None and score < threshold
        reasons.append(NO_SCORE if not good else BELOW if low else OUTRANKED)
    ranking = sorted(
        (at for at, why in enumerate(reasons) if why == OUTRANKED), key=lambda at: (-(scores[at] or 0.0), at)
    )
    for at in ranking[:keep]:
        reasons[at] = None
    return ranking[:keep], reasons


def gain(extras: Mapping[str, int]) -> dict[str, float] | None:
    """The share of images that show what their text says, of all and of those kept; None where nobody knows.

    >>> gain({"known_before": 40, "faithful_before": 20, "known_after": 10, "faithful_after": 9})
    {'faithful_before': 0.5, 'faithful_after': 0.9}
    """
    if not extras.get("known_before") or not extras.get("known_after"):
        return None
    return {f"faithful_{when}": extras[f"faithful_{when}"] / extras[f"known_{when}"] for when in ("before", "after")}


@dataclass(frozen=True)
class OpenRanker:
    spec: Rank

    def __call__(self) -> ImageScorer:
        return open_scorer(self.spec)


def open_scorer(spec: Rank) -> ImageScorer:
    """The scorer of a recipe; its model is loaded when it is first used.

    Raises:
        PipelineError: the model is missing or wrong.
    """
    from reward.scorers.clip import ClipScorer

    # An architecture is told by its weights; everything else is a folder or a built-in name.
    model = spec.model if spec.pretrained else models.resolve(spec.model)
    try:
        return ClipScorer(model, spec.pretrained, spec.batch_size, "auto", spec.processor)
    except ValueError as error:
        raise ConfigError(f"source.rank: {error}") from error


def _failed_row(row: Mapping[str, Any], status: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": row["id"], **{key: status[key] for key in OK}}
