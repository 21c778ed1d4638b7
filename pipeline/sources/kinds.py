"""Every kind of source that a recipe may name."""

from __future__ import annotations

from typing import Annotated

from pydantic import Tag

from pipeline.base.config import PLUGGED, by_kind
from pipeline.sources.config import (
    CocoSource,
    FolderSource,
    HuggingFaceSource,
    LlavaSource,
    PdsSource,
    PluggedSource,
    ScenesSource,
    TableSource,
    VisualGenomeSource,
    WebDatasetSource,
)
from pipeline.sources.imagine.config import ImagineSource
from pipeline.sources.readers.protocol import READERS

Source = Annotated[
    Annotated[ScenesSource, Tag("scenes")]
    | Annotated[TableSource, Tag("jsonl")]
    | Annotated[TableSource, Tag("csv")]
    | Annotated[TableSource, Tag("parquet")]
    | Annotated[FolderSource, Tag("folder")]
    | Annotated[HuggingFaceSource, Tag("huggingface")]
    | Annotated[CocoSource, Tag("coco")]
    | Annotated[VisualGenomeSource, Tag("visual_genome")]
    | Annotated[LlavaSource, Tag("llava")]
    | Annotated[PdsSource, Tag("pds")]
    | Annotated[WebDatasetSource, Tag("webdataset")]
    | Annotated[ImagineSource, Tag("imagine")]
    | Annotated[PluggedSource, Tag(PLUGGED)],
    by_kind("scenes", PluggedSource.group, ("scenes", *READERS, "imagine")),
]
