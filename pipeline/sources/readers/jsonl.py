"""A file of ``{"images": [path, ...], "prompt": text or messages, "facts": {...}, "answer": text}`` lines."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Sequence
from typing import IO, Any

from pipeline.base.errors import InputError
from pipeline.base.images import references
from pipeline.base.images.image_files import public
from pipeline.sources.config import TableSource
from pipeline.sources.readers import files, record, seen
from pipeline.sources.readers.protocol import Entry
from pipeline.sources.readers.roots import Root, root_of


def read(spec: TableSource) -> Iterator[Entry]:
    for path in files.expand(spec.path):
        root, name = root_of(spec.root, path, spec.allow_http), files.base_name(path)
        for number, line in lines(path):
            place, source = record.Place(path, "line", number), f"{name}:{number}"
            yield from record.attempt(source, _entries, line, place, source, root, spec.prompts)


def _entries(
    line: str | record.BadRow, place: record.Place, source: str, root: Root | None, prompts: Sequence[str]
) -> Iterator[Entry]:
    return record.entries(an_object(line, place), place, source, root, prompts)


def an_object(line: str | record.BadRow, place: record.Place) -> dict[str, Any]:
    """
    Raises:
        BadRow: the line is not the JSON of an object.
    """
    if isinstance(line, record.BadRow):
        raise line
    value = record.parse(line, place)
    if not isinstance(value, dict):
        raise record.BadRow(f"{place}: not an object", "write one {...} per line")
    return value


def lines(path: str) -> Iterator[tuple[int, str | record.BadRow]]:
    """Lines that are not blank, numbered from 1; a mark of the byte order before the first is no part of it. Of a line
    that is not UTF-8, what is wrong with it.

    Raises:
        InputError: the file cannot be read, or is in UTF-16.
    """
    with files.reading(path) as file:
        refuse_utf16(file, path)
        for number, data in enumerate(file, 1):
            if number == 1:
                data = data.removeprefix(codecs.BOM_UTF8)
            if not data.isspace():
                yield number, _decode(data, record.Place(path, "line", number))


def refuse_utf16(file: IO[bytes], path: str) -> None:
    """
    Raises:
        InputError: the file begins as one in UTF-16.
    """
    if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        raise InputError(f"{public(path)} is in UTF-16", "save it as UTF-8")
    file.seek(0)


def _decode(data: bytes, place: record.Place) -> str | record.BadRow:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        return record.BadRow(f"{place}: byte {error.start} of the line is not UTF-8", "save the file as UTF-8")


def stamp(spec: TableSource) -> list[str]:
    return [seen.stamp(path, spec, _columns) for path in files.expand(spec.path)]


def _columns(path: str) -> Iterator[list[str]]:
    """The image paths of many lines at a time. Arrow's reader takes a fraction of the time; what it cannot read, the
    reader above can, or will complain about with the number of the line."""
    import pyarrow as pa
    from pyarrow import json

    text = pa.string()
    wanted = pa.schema([(name, pa.list_(text) if name.endswith("s") else text) for name in references.IMAGES])
    options = json.ParseOptions(explicit_schema=wanted, unexpected_field_behavior="ignore")
    with files.reading(path) as file:
        try:
            for batch in json.open_json(file, json.ReadOptions(use_threads=False, block_size=1 << 22), options):
                for name in references.IMAGES:
                    column = batch[name]
                    yield (column.flatten() if name.endswith("s") else column).unique().to_pylist()
        except (pa.ArrowException, KeyError, ValueError):
            yield from seen.paths(entry.images for entry in read(TableSource(kind="jsonl", path=path, prompts=("-",))))
