"""Where images and prompts come from, what of them is left out, and how large an image may be."""

from __future__ import annotations

import os
from typing import Annotated, Any, ClassVar, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field

from pipeline.base.config import AT_HOME, Count, Frozen, NotNegative, PlugIn, Whole

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
Location = Annotated[str, AT_HOME, BeforeValidator(_text), AfterValidator(_without_secrets)]
#: Of 64 bits; images of one motif differ by some 20.
Bits = Annotated[NotNegative, Field(le=15)]


class Dedup(Frozen):
    """Which images count as seen before. Of several rows the one with the smallest id stays."""

    exact: bool = Field(False, description="ask about every image once only")
    perceptual: Bits | None = Field(
        None,
        description="bits of 64 that the hashes of two images may differ in to count as one, which is dropped with all "
        "its prompts; several prompts about the same file stay",
    )


class Decontaminate(Frozen):
    """Keeps benchmarks out: rows that share images or texts with them are dropped."""

    images: tuple[Location, ...] = Field((), description="files, folders or globs of a benchmark's images")
    texts: tuple[Location, ...] = Field((), description="files of a benchmark's texts: .txt by line, .json, .jsonl")
    ngram: Count = Field(
        13, description="words in a row that a prompt, a caption or an answer may not share with texts"
    )
    distance: Bits = Field(4, description="bits of 64 that the hashes of images differ in at most to count as one")


class Common(Frozen):
    """What every source takes."""

    limit: Count | None = Field(None, description="prompts after which reading ends")
    dedup: Dedup = Field(Dedup(), description="images seen before")
    decontaminate: Decontaminate = Field(Decontaminate(), description="images and texts of benchmarks")
    max_image_bytes: Count = Field(50_000_000, description="bytes of an image file; larger ones are failed rows")
    max_image_pixels: Count = Field(100_000_000, description="pixels of an image; larger ones are failed rows")


class _Files(Common):
    """Files of prompts or images."""

    path: Location = Field(description="file, folder or URL")
    root: Location | None = Field(
        None, description="what image paths are relative to and may not leave; default: the folder of the file"
    )
    prompts: tuple[str, ...] = Field((), description="asked about every image without a prompt of its own")
    allow_http: bool = Field(False, description="follow http(s) addresses in rows, to wherever they lead")


_Prompts = Annotated[tuple[str, ...], Field(min_length=1, description="asked about every image")]


class ScenesSource(Common):
    """Prompts about pictures of the built-in world."""

    kind: Literal["scenes"] = Field("scenes", description="the built-in world")
    scenes: Count = Field(256, description="pictures that are drawn")
    questions_per_scene: NotNegative = Field(0, description="yes/no questions about each, with exact answers")
    prompts: tuple[str, ...] = Field((), description="ask for a description; default: built-in ones, one a picture")
    seed: Whole = Field(0, description="added to the run's, so that two sources can differ")


class TableSource(_Files):
    """One prompt a row: ``images`` (paths; or ``image``), ``prompt`` (text or messages), ``facts``, ``answer``.

    ``facts`` and ``answer`` are optional; a CSV cell holds facts, and several images, as JSON. ``path`` may be a glob.
    """

    kind: Literal["jsonl", "csv", "parquet"] = Field(description="a file with one prompt a row")


class FolderSource(_Files):
    """Every image below the folder ``path`` with each of ``prompts``."""

    kind: Literal["folder"] = Field(description="a folder of images")
    prompts: _Prompts = DESCRIBE


class Columns(Frozen):
    """What the columns are called. All but that of images may be null, or missing in the dataset."""

    images: str = Field("image", description="as image: any name of pipeline.base.images.references.IMAGES")
    prompt: str | None = Field("prompt", description="text or messages")
    facts: str | None = Field("facts", description="what is known of the images")
    answer: str | None = Field("answer", description="the right answer")


class HuggingFaceSource(_Files):
    """``path`` is a folder written by ``save_to_disk``, or the name of a dataset, which is streamed."""

    kind: Literal["huggingface"] = Field(description="a dataset of the library datasets")
    name: str | None = Field(None, description="config of the dataset")
    split: str = Field("train", description="split of the dataset")
    revision: str | None = Field(None, description="branch, tag or commit on the hub")
    columns: Columns = Field(Columns(), description="what its columns are called")


class CocoSource(_Files):
    """``path`` is an instances file, whose boxes become facts."""

    kind: Literal["coco"] = Field(description="annotations of COCO")
    captions: Location | None = Field(None, description="captions file, whose texts become facts, too")
    prompts: _Prompts = DESCRIBE


class VisualGenomeSource(_Files):
    """``path`` is region_descriptions.json, whose regions become facts."""

    kind: Literal["visual_genome"] = Field(description="regions of Visual Genome")
    image_data: Location | None = Field(
        None, description="image_data.json, which saves opening every image for its size"
    )
    prompts: _Prompts = DESCRIBE


class LlavaSource(_Files):
    """Instruction data as LLaVA's: the first question of every conversation."""

    kind: Literal["llava"] = Field(description="instruction data as LLaVA's")
    use_answers: bool = Field(False, description="make the answer to the question a fact")


class PdsSource(_Files):
    """Pairs in PDS-DPO's format: ``conversations`` end with the chosen answer, ``rejected_conversations`` with the
    rejected one. The prompts are what both begin with; ``sample.engine.kind=given`` makes the answers candidates."""

    kind: Literal["pds"] = Field(description="pairs in PDS-DPO's format")


class WebDatasetSource(_Files):
    """Uncompressed tars; ``path`` may be a glob. A sample is KEY.jpg (.png, .webp, ...) with KEY.json (as a row of
    ``jsonl``) or KEY.txt, which is its prompt unless the recipe has ``prompts``."""

    kind: Literal["webdataset"] = Field(description="tars as WebDataset's")


class PluggedSource(Common, PlugIn):
    """Rows of other people's code, with the options of that code beside ``kind``."""

    group: ClassVar[str] = "sources"
    method: ClassVar[str] = "read()"

    root: Location = Field(
        ".", description="what image paths are relative to and may not leave; default: where the command runs"
    )
    prompts: tuple[str, ...] = Field((), description="asked about every image without a prompt of its own")
    allow_http: bool = Field(False, description="follow http(s) addresses in rows, to wherever they lead")


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
#: What a reader reads.
ReadSource = FileSource | PluggedSource
