"""Where images and prompts come from, what of them is left out, and how large an image may be."""

from __future__ import annotations

import os
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from pipeline.base.config import Count, Frozen

DESCRIBE = ("Describe the image in detail.",)


def _text(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _without_secrets(value: str) -> str:
    """A recipe is printed in the card of the dataset."""
    for link in value.split("::"):
        parts = urlsplit(link) if "://" in link else None
        if parts and (parts.username or parts.password or (parts.scheme in ("http", "https") and parts.query)):
            raise ValueError("a location must not hold a user, password or query; keep them in the environment")
    return value


#: A local path or a URL that fsspec knows.
Location = Annotated[str, BeforeValidator(_text), AfterValidator(_without_secrets)]
#: Of 64 bits; images of one motif differ by some 20.
Bits = Annotated[int, Field(ge=0, le=15)]


class Dedup(Frozen):
    """Which images count as seen before. Of several rows the one with the smallest id stays.

    ``exact``: every image is asked about once only. ``perceptual``: an image whose hash is within so many bits of
    another one's is dropped with all its prompts; several prompts about one and the same file stay.
    """

    exact: bool = False
    perceptual: Bits | None = None


class Decontaminate(Frozen):
    """Keep benchmarks out: rows with an image within ``distance`` bits of one of ``images`` (files, folders, globs),
    or whose prompt, captions or answer share ``ngram`` words in a row with ``texts`` (.txt by line, .json, .jsonl)."""

    images: tuple[Location, ...] = ()
    texts: tuple[Location, ...] = ()
    ngram: Count = 13
    distance: Bits = 4


class Common(Frozen):
    """What every source takes. ``limit`` ends reading after so many prompts."""

    limit: Count | None = None
    dedup: Dedup = Dedup()
    decontaminate: Decontaminate = Decontaminate()
    max_image_bytes: Count = 50_000_000
    max_image_pixels: Count = 100_000_000


class _Files(Common):
    """``root`` is what image paths are relative to and may not leave; without it, the folder of the file.

    ``prompts`` are asked about every image that comes without a prompt of its own.
    """

    path: Location
    root: Location | None = None
    prompts: tuple[str, ...] = ()
    allow_http: bool = False


class ScenesSource(Common):
    """Prompts from the built-in world. ``seed`` is added to the run's, so that two sources can differ."""

    kind: Literal["scenes"] = "scenes"
    scenes: Count = 256
    questions_per_scene: Annotated[int, Field(ge=0)] = 0
    prompts: tuple[str, ...] = ()
    seed: int = 0


class TableSource(_Files):
    """One prompt a row: ``images`` (paths; or ``image``), ``prompt`` (text or messages), ``facts``, ``answer``.

    ``facts`` and ``answer`` are optional; a CSV cell holds facts, and several images, as JSON. ``path`` may be a glob.
    """

    kind: Literal["jsonl", "csv", "parquet"]


class FolderSource(_Files):
    """Every image below the folder ``path`` with each of ``prompts``."""

    kind: Literal["folder"]
    prompts: Annotated[tuple[str, ...], Field(min_length=1)] = DESCRIBE


class Columns(Frozen):
    """What the columns are called; by default, that of images may have any name of
    ``pipeline.base.images.references.IMAGES``.
    ``prompt``, ``facts`` and ``answer`` may be null, or missing in the dataset."""

    images: str = "image"
    prompt: str | None = "prompt"
    facts: str | None = "facts"
    answer: str | None = "answer"


class HuggingFaceSource(_Files):
    """``path`` is a folder written by ``save_to_disk``, or the name of a dataset, which is streamed."""

    kind: Literal["huggingface"]
    name: str | None = None
    split: str = "train"
    revision: str | None = None
    columns: Columns = Columns()


class CocoSource(_Files):
    """``path`` is an instances file, whose boxes become facts; ``captions`` a captions file."""

    kind: Literal["coco"]
    captions: Location | None = None
    prompts: Annotated[tuple[str, ...], Field(min_length=1)] = DESCRIBE


class VisualGenomeSource(_Files):
    """``path`` is region_descriptions.json; ``image_data`` (image_data.json) saves opening every image for its size."""

    kind: Literal["visual_genome"]
    image_data: Location | None = None
    prompts: Annotated[tuple[str, ...], Field(min_length=1)] = DESCRIBE


class LlavaSource(_Files):
    """Instruction data as LLaVA's: the first question of every conversation; its answer becomes a fact if asked for."""

    kind: Literal["llava"]
    use_answers: bool = False


class PdsSource(_Files):
    """Pairs in PDS-DPO's format: ``conversations`` end with the chosen answer, ``rejected_conversations`` with the
    rejected one. The prompts are what both begin with; ``sample.engine.kind=given`` makes the answers candidates."""

    kind: Literal["pds"]


class WebDatasetSource(_Files):
    """Uncompressed tars; ``path`` may be a glob. A sample is KEY.jpg (.png, .webp, ...) with KEY.json (as a row of
    ``jsonl``) or KEY.txt, which is its prompt unless the recipe has ``prompts``."""

    kind: Literal["webdataset"]


FileSource = (
    TableSource
    | FolderSource
    | HuggingFaceSource
    | CocoSource
    | VisualGenomeSource
    | LlavaSource
    | PdsSource
    | WebDatasetSource
)
