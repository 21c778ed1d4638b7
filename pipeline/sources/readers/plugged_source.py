"""The rows of other people's code (``pipeline.base.plugins``), as one of a recipe's sources.

Its class has ``read()``, which yields rows as those of ``jsonl``, or an ``Entry`` where it has a place of its own to
name. They are checked as the rows of a file are: what is wrong with one is that row's, and image paths stay below the
recipe's root. What ``stamp()`` gives, if it has one, says what the input says.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from pipeline.base import plugins
from pipeline.base.errors import InputError, PipelineError
from pipeline.sources.config import PluggedSource
from pipeline.sources.readers import files, record
from pipeline.sources.readers.protocol import Entry
from pipeline.sources.readers.roots import Root


def read(spec: PluggedSource) -> Iterator[Entry]:
    """
    Raises:
        InputError: ``read()`` itself fails.
    """
    root, number = Root(files.absolute(spec.root), spec.allow_http), 0
    with _blamed(spec, "read()", lambda: f" after {number} rows"):
        for number, row in enumerate(spec.plug_in.read(), 1):
            place = f"{spec.kind}:{number}"
            if isinstance(row, Entry) and row.source:
                place = str(row.source)
            yield from record.attempt(place, _entries, row, place, root, spec.prompts)


def stamp(spec: PluggedSource) -> dict[str, Any]:
    """
    Raises:
        InputError: ``stamp()`` fails.
    """
    with _blamed(spec, "stamp()"):
        return {"identity": spec.identity, "stamp": spec.plug_in.stamp() if hasattr(spec.plug_in, "stamp") else None}


def _entries(row: Any, place: str, root: Root, prompts: tuple[str, ...]) -> Iterator[Entry]:
    if isinstance(row, Entry):
        if row.error is not None:
            kind, reason = row.error
            raise record.BadRow(str(reason), kind=str(kind))
        prompt = row.prompt if isinstance(row.prompt, str) else list(row.prompt)
        row = {"images": list(row.images), "prompt": prompt, "facts": row.facts}
    if not isinstance(row, Mapping):
        raise record.BadRow(f"{place}: it is a {type(row).__name__}", "yield {'images': [...], 'prompt': ...}")
    return record.entries(row, place, place, root, prompts)


@contextmanager
def _blamed(spec: PluggedSource, what: str, when: Callable[[], str] = str) -> Iterator[None]:
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        told = f"{spec.kind}: {what} failed{when()}: {plugins.failure(spec.plug_in, error)}"
        raise InputError(told, "correct it, or what it reads") from error
