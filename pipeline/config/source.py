"""Where images and prompts come from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, Tag

from pipeline.config.base import Count, Frozen, by_kind


class ScenesSource(Frozen):
    """Prompts from the built-in world. ``seed`` is added to the run's, so that two sources can differ."""

    kind: Literal["scenes"] = "scenes"
    scenes: Count = 256
    questions_per_scene: Annotated[int, Field(ge=0)] = 0
    prompts: tuple[str, ...] = ()
    seed: int = 0


class JsonlSource(Frozen):
    """One prompt per line: ``{"images": [path, ...], "prompt": text or messages, "facts": {...}, "answer": text}``.

    ``facts`` and ``answer`` are optional; image paths are relative to the file.
    """

    kind: Literal["jsonl"]
    path: Path


Source = Annotated[
    Annotated[ScenesSource, Tag("scenes")] | Annotated[JsonlSource, Tag("jsonl")],
    by_kind("scenes"),
]
