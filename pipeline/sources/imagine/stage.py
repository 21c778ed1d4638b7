"""Make images from texts: the texts as a source of their own, and the stage that has them drawn."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.base import model_names as models
from pipeline.base import seeds
from pipeline.base.errors import InputError
from pipeline.base.images.pixels import MAX_BYTES, MAX_PIXELS
from pipeline.base.tables import IMAGES, OK, PROMPTS, error_status, stage_table
from pipeline.engines.painter import Painter, Picture, Wish
from pipeline.running.stage import WorkerSpec
from pipeline.running.store import Run
from pipeline.sources.admission.verdicts import Verdicts
from pipeline.sources.imagine.config import DiffusersGenerator, ImagineSource, SceneGenerator, Texts
from pipeline.sources.readers import files, record
from pipeline.sources.readers.jsonl import an_object, lines
from pipeline.sources.readers.protocol import Entry, user_turn
from pipeline.sources.stage import spool_shards

#: Arrow's columns of bytes hold no more.
_MOST_BYTES = (1 << 31) - 1


@dataclass(frozen=True)
class TextSource:
    """The texts as prompts without images. A text that comes twice is drawn once."""

    spec: Texts
    seed: int
    shard_size: int

    name = "texts"
    version = 2
    inputs = ()
    schema = PROMPTS

    def options(self) -> dict[str, Any]:
        """What the texts say, not where they lie."""
        if self.spec.path is None:
            recorded: dict[str, Any] = {"scenes": self.spec.scenes, "seed": self.seed + self.spec.seed}
        else:
            recorded = {"content": [files.stamp(path) for path in files.expand(self.spec.path)]}
        return {**recorded, "shard_size": self.shard_size}

    def shards(self, run: Run) -> Iterator[tuple[int, pa.Table]]:
        """
        Raises:
            InputError: a file cannot be read, or no line of it is a text.
        """
        yield from spool_shards(
            run, self.name, self.shard_size, texts(self.spec, self.seed), Verdicts(MAX_BYTES, MAX_PIXELS, hashed=False)
        )

    def extras(self, table: pa.Table) -> dict[str, int]:
        return {}


def texts(spec: Texts, seed: int) -> Iterator[Entry]:
    """Texts as prompts; a line that is no ``{"text": ...}`` has an ``error``. ``seed`` is the run's.

    Raises:
        InputError: a file cannot be read.
    """
    if spec.path is None:
        assert spec.scenes is not None
        yield from _of_scenes(spec.scenes, seed + spec.seed)
        return
    for path in files.expand(spec.path):
        name = files.base_name(path)
        for number, line in lines(path):
            place, source = record.Place(path, "line", number), f"{name}:{number}"
            yield from record.attempt(source, _of_line, line, place, source, name.endswith(".txt"))


def _of_line(line: str, place: record.Place, source: str, plain: bool) -> Iterator[Entry]:
    text = line.strip() if plain else an_object(line, place).get("text")
    if not isinstance(text, str):
        raise record.BadRow(f"{place}: no `text`", 'write {"text": "..."} on each line, or plain lines in a .txt')
    yield Entry([], user_turn(text), None, source)


def _of_scenes(count: int, seed: int) -> Iterator[Entry]:
    from pipeline.scenes import grammar
    from pipeline.scenes.world import scene

    for index in range(count):
        rng = random.Random(f"texts:{seed}:{index}")
        text = grammar.describe(grammar.reading_order(scene(seed, index)), rng)
        yield Entry([], user_turn(text), None, f"scenes:{seed}")


@dataclass(frozen=True)
class ImagineStage:
    """Several images of every text. An image that fails is one without bytes; a text fails if all of its images do."""

    spec: ImagineSource
    seed: int

    name = "imagine"
    version = 1
    inputs = ("texts",)
    schema = IMAGES

    @property
    def worker(self) -> WorkerSpec | None:
        """Scenes are drawn where the driver runs; a model gets processes of its own."""
        generator = self.spec.generator
        if isinstance(generator, SceneGenerator):
            return None
        from pipeline.engines.diffusion import OpenDiffusers

        options = generator.model_dump(exclude={"kind", "workers", "model"})
        return WorkerSpec(
            f"diffusers:{generator.model}",
            OpenDiffusers(model=models.resolve(generator.model), **options),
            gpus=1.0,
            count=generator.workers,
            model=generator.model,
        )

    def options(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "generator": self.spec.generator.result_options(),
            "model_identity": _identity(self.spec.generator),
            "images_per_prompt": self.spec.images_per_prompt,
            "guidance_scales": list(self.spec.guidance_scales),
        }

    def process(self, model: Painter | None, tables: Mapping[str, pa.Table]) -> pa.Table:
        """
        Raises:
            InputError: the images of the shard are more than Arrow can hold.
        """
        rows = tables["texts"].select(["id", "prompt", *OK]).to_pylist()
        good = [row for row in rows if row["status"] == "ok"]
        wishes = [wish for row in good for wish in self._wishes(row)]
        pictures = (model or _painter(self.spec.generator)).paint(wishes)
        drawn = [_image_row(wish, picture) for wish, picture in zip(wishes, pictures, strict=True)]
        _check_size(drawn, len(rows))
        made = iter(drawn)
        return stage_table([self._row(row, made) for row in rows], IMAGES)

    def extras(self, table: pa.Table) -> dict[str, int]:
        images = pc.list_flatten(table["images"])
        broken = len(images) - pc.count(pc.struct_field(images, "bytes")).as_py()
        return {"images": len(images), **({"broken": broken} if broken else {})}

    def _wishes(self, row: Mapping[str, Any]) -> Iterator[Wish]:
        text, scales = _text(row), self.spec.guidance_scales
        name = self.spec.generator.name
        for at in range(self.spec.images_per_prompt):
            yield Wish(text, seeds.derive(self.seed, row["id"], name, at), scales[at % len(scales)])

    def _row(self, row: Mapping[str, Any], made: Iterator[dict[str, Any]]) -> dict[str, Any]:
        if row["status"] != "ok":
            return {"id": row["id"], "text": _text(row), "images": None, **{key: row[key] for key in OK}}
        images = [next(made) for _ in range(self.spec.images_per_prompt)]
        whole = any(image["bytes"] is not None for image in images)
        status = OK if whole else error_status(images[0]["error_type"], images[0]["error"])
        return {"id": row["id"], "text": _text(row), "images": images if whole else None, **status}


def _text(row: Mapping[str, Any]) -> str:
    return row["prompt"][-1]["content"] if row["prompt"] else ""


def _identity(spec: SceneGenerator | DiffusersGenerator) -> str:
    if isinstance(spec, SceneGenerator):
        return "scenes"
    from pipeline.engines import diffusion

    return diffusion.identity(spec.model, spec.revision)


def _painter(spec: SceneGenerator | DiffusersGenerator) -> Painter:
    from pipeline.scenes.generator import ScenePainter

    assert isinstance(spec, SceneGenerator)
    return ScenePainter(spec.drop, spec.swap, spec.add)


def _image_row(wish: Wish, picture: Picture) -> dict[str, Any]:
    return {
        "bytes": picture.bytes,
        "seed": wish.seed,
        "guidance": wish.guidance,
        "facts": picture.facts,
        "error_type": picture.error_type,
        "error": picture.error,
    }


def _check_size(drawn: list[dict[str, Any]], rows: int) -> None:
    total = sum(len(image["bytes"] or b"") for image in drawn)
    if total > _MOST_BYTES:
        remedy = f"set shard_size to {max(1, rows * _MOST_BYTES // total // 2)} or less"
        raise InputError(f"the images of one shard of texts have {total} bytes", remedy)
