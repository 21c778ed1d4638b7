"""Readers of images and prompts, one a module: each turns a source of the recipe into a stream of entries.

A reader opens no image. It yields paths as they are written; ``pipeline.sources.admission.admit`` finds the files,
looks at them and gives every prompt its id.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from itertools import islice
from typing import Any, NamedTuple

from pipeline.sources.config import PluggedSource, ReadSource, ScenesSource
from pipeline.sources.readers.roots import Root

Message = Mapping[str, str]


class Entry(NamedTuple):
    """One prompt as a reader found it.

    ``images`` are ``{"bytes", "path"}``; a path without bytes is relative to ``root``. A null ``root`` is for
    paths that the reader made itself; what an input says must have one. ``facts`` has keys of
    ``pipeline.base.tables.FACTS``. ``source`` says where the prompt stood, such as ``a.jsonl:17``. ``error`` is null,
    or why the row is no prompt as ``(error_type, reason)``, where the reason names the place and the remedy.
    ``annotated`` is the width and height of the picture that boxes of the facts are parts of, where they are known.
    """

    images: Sequence[Mapping[str, Any]]
    prompt: Sequence[Message]
    facts: Mapping[str, Any] | None
    source: str
    root: Root | None = None
    error: tuple[str, str] | None = None
    annotated: tuple[float, float] | None = None


#: Kinds with a module of that name that has ``read(spec) -> Iterator[Entry]`` and ``stamp(spec) -> JSON value`` (what
#: the input says).
READERS = ("jsonl", "csv", "parquet", "folder", "huggingface", "coco", "visual_genome", "llava", "pds", "webdataset")
#: Where an input lies is no part of what it says.
_PLACES = {"path", "root", "captions", "image_data", "decontaminate"}


def entries(spec: ScenesSource | ReadSource, seed: int = 0) -> Iterator[Entry]:
    """All prompts of a source, in the order of its files, up to ``limit``. ``seed`` is the run's. A malformed row is an
    entry with an ``error``.

    Raises:
        InputError: a file cannot be read, or is damaged as a whole.
    """
    rows = _scenes(spec, seed) if isinstance(spec, ScenesSource) else _reader(spec).read(spec)
    return islice(rows, spec.limit)


def identity(spec: ScenesSource | ReadSource, seed: int = 0) -> dict[str, Any]:
    """Everything the entries of ``spec`` depend on: options, and what the files say."""
    # Those of a plug-in are part of what its reader stamps.
    options = spec.model_dump(mode="json", exclude=_PLACES | set(spec.model_extra or ()))
    if isinstance(spec, ScenesSource):
        return {**options, "seed": seed + spec.seed}
    return {**options, "content": _reader(spec).stamp(spec)}


def user_turn(prompt: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}]


def _reader(spec: ReadSource) -> Any:
    name = "plugged_source" if isinstance(spec, PluggedSource) else spec.kind
    return import_module(f"pipeline.sources.readers.{name}")


def _scenes(spec: ScenesSource, seed: int) -> Iterator[Entry]:
    from pipeline.scenes import prompts

    rows = prompts.build(spec.scenes, spec.questions_per_scene, list(spec.prompts) or None, seed + spec.seed)
    return (Entry(**row) for row in rows)
