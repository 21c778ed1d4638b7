"""What the images of every prompt are to a CLIP model, so that those that are alike can be found among the pairs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.base.errors import ConfigError, PipelineError
from pipeline.base.images import image_files
from pipeline.base.tables import EMBEDDINGS, OK, error_status, stage_table
from pipeline.publishing.config import Similar
from pipeline.running.stage import WorkerSpec
from pipeline.scoring.scorers import open_clip_scorer

if TYPE_CHECKING:
    from reward.scorers.clip import ClipScorer

NAME = "embed"


@dataclass(frozen=True)
class EmbedStage:
    """A prompt of text alone has no vectors and has not failed; one that failed in the source fails as it did there."""

    spec: Similar

    name = NAME
    version = 1
    inputs = ("source",)
    schema = EMBEDDINGS

    @property
    def worker(self) -> WorkerSpec:
        return WorkerSpec(
            f"clip:{self.spec.model}",
            OpenClip(self.spec),
            gpus=self.spec.gpus,
            count=self.spec.workers,
            model=self.spec.model,
        )

    def options(self) -> dict[str, Any]:
        return {"clip": OpenClip(self.spec)().version}

    def process(self, model: ClipScorer, tables: Mapping[str, pa.Table]) -> pa.Table:
        rows = tables["source"].select(["id", "images", *OK]).to_pylist()
        embedded = iter(_embed(model, [row for row in rows if row["status"] == "ok"]))
        failed = ({"id": row["id"], **{key: row[key] for key in OK}} for row in rows if row["status"] != "ok")
        return stage_table([next(embedded if row["status"] == "ok" else failed) for row in rows], EMBEDDINGS)

    def extras(self, table: pa.Table) -> dict[str, int]:
        return {}


@dataclass(frozen=True)
class OpenClip:
    spec: Similar

    def __call__(self) -> ClipScorer:
        try:
            return open_clip_scorer(self.spec)
        except ValueError as error:
            raise ConfigError(f"publish.similar: {error}") from error


def _embed(model: ClipScorer, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row that breaks the model fails alone."""
    try:
        images = [[image_files.load(image) for image in row["images"] or ()] for row in rows]
        return [_row(*each) for each in zip(rows, images, model.embed_images(images), strict=True)]
    except PipelineError:
        raise
    except Exception as error:  # other people's models, and files that are gone: one row's, until shown otherwise
        if len(rows) > 1:
            return [embedded for row in rows for embedded in _embed(model, [row])]
        return [{"id": rows[0]["id"], **error_status(type(error).__name__, str(error))}]


def _row(row: Mapping[str, Any], images: Sequence[bytes], vectors: Any) -> dict[str, Any]:
    if not vectors.isfinite().all():
        return {"id": row["id"], **error_status("not_finite", "the model gives no finite vector for an image")}
    digests = [hashlib.blake2b(image, digest_size=16).digest() for image in images]
    return {"id": row["id"], "digests": digests, "vectors": vectors.tolist(), **OK}
