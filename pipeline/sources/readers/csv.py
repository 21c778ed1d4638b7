"""A CSV file with a header: columns as ``jsonl``; facts, messages and several images of a cell are JSON."""

from __future__ import annotations

import contextlib
import csv
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.base.errors import InputError
from pipeline.base.images import references
from pipeline.sources.config import TableSource
from pipeline.sources.readers import files, record, seen
from pipeline.sources.readers.answer import COLUMNS as ANSWERS
from pipeline.sources.readers.protocol import Entry
from pipeline.sources.readers.roots import Root, root_of


def read(spec: TableSource) -> Iterator[Entry]:
    for path in files.expand(spec.path):
        root, name = root_of(spec.root, path, spec.allow_http), files.base_name(path)
        for number, cells in _rows(path):
            place, source = record.Place(path, "line", number), f"{name}:{number}"
            yield from record.attempt(source, _entries, cells, place, source, root, spec.prompts)


def stamp(spec: TableSource) -> list[str]:
    return [seen.stamp(path, spec, _columns) for path in files.expand(spec.path)]


def _rows(path: str) -> Iterator[tuple[int, dict[str, str] | str]]:
    """Cells by their column; of a row that is malformed, what is wrong with it."""
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # facts of a crowded image are longer than the default allows
    with files.reading(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        rows = csv.DictReader(text, strict=True)
        _check_header(path, rows)
        while True:
            before = rows.reader.line_num
            try:
                row = next(rows, None)
            except csv.Error as error:
                # A quote that was not closed, or closed some lines later: nobody knows how many rows are in it.
                if _is_open(error) or rows.reader.line_num > before + 1:
                    raise InputError(f"{path}, line {rows.reader.line_num}: {error}", "correct the line") from error
                yield rows.reader.line_num, f"{error}; correct the line"
                continue
            if row is None:
                return
            if None in row or None in row.values():
                yield rows.line_num, "not as many cells as the header has; quote cells with commas"
            elif any("\0" in text for text in row.values()):
                yield rows.line_num, "holds a NUL character, as a damaged file does; write it again"
            else:
                yield rows.line_num, row


def _check_header(path: str, rows: csv.DictReader[str]) -> None:
    try:
        names = list(rows.fieldnames or ())
    except csv.Error as error:
        raise InputError(f"{path}, line {rows.reader.line_num}: the header: {error}", "correct it") from error
    if twice := sorted({name for name in names if names.count(name) > 1}):
        listed = ", ".join(map(repr, twice))
        raise InputError(f"{path}, line 1: the header names {listed} more than once", "rename one of them")


def _is_open(error: csv.Error) -> bool:
    """Whether a quote was opened and not closed before the end of the file."""
    return "unexpected end of data" in str(error)


def _entries(
    cells: Mapping[str, str] | str, place: record.Place, source: str, root: Root, prompts: Sequence[str]
) -> Iterator[Entry]:
    if isinstance(cells, str):
        raise record.BadRow(f"{place}: {cells}")
    return record.entries(_value(cells, place), place, source, root, prompts)


def _value(cells: Mapping[str, str], place: record.Place) -> dict[str, Any]:
    value: dict[str, Any] = {name: text for name, text in cells.items() if text or name == "prompt"}
    for name in references.IMAGES:
        if name in cells:
            value[name] = _images(cells[name], place)
    if value.get("prompt", "").lstrip().startswith('[{"'):
        value["prompt"] = record.parse(value["prompt"], place, "`prompt` is ")
    if "facts" in value:
        value["facts"] = record.parse(value["facts"], place, "`facts` is ")
    for name in ANSWERS:
        if value.get(name, "").lstrip().startswith(('["', "['", "[{")):
            value[name] = record.parse(value[name], place, f"`{name}` is ")
    return value


def _images(cell: str, place: record.Place) -> Any:
    if cell.lstrip().startswith("["):
        return record.parse(cell, place, "`images` is ")
    return [cell] if cell else []


def _columns(path: str) -> Iterator[list[str]]:
    for number, cells in _rows(path):
        place = record.Place(path, "line", number)
        for name in references.IMAGES:
            if not isinstance(cells, str) and name in cells:
                with contextlib.suppress(record.BadRow):  # the row will fail, and say why
                    yield [item for item in _images(cells[name], place) if isinstance(item, str)]
