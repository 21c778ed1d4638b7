"""A CSV file with a header: columns as ``jsonl``; facts, messages and several images of a cell are JSON."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.base.errors import InputError
from pipeline.base.images import references
from pipeline.sources.config import TableSource
from pipeline.sources.readers import files, record, seen
from pipeline.sources.readers.answer import COLUMNS as ANSWERS
from pipeline.sources.readers.jsonl import refuse_utf16
from pipeline.sources.readers.protocol import Entry
from pipeline.sources.readers.roots import Root, root_of

#: A list of texts or objects begins so, as JSON or as another language writes it.
_QUOTED = re.compile(r"\[\s*[\"'{\[]")


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
    with files.reading(path) as file:
        refuse_utf16(file, path)
        # What is not UTF-8 is left to its row.
        text = io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")
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
            elif any("\0" in cell for cell in row.values()):
                yield rows.line_num, "holds a NUL character, as a damaged file does; write it again"
            elif any(map(_is_foreign, row.values())):
                yield rows.line_num, "is not UTF-8; save the file as UTF-8"
            else:
                yield rows.line_num, row


def _check_header(path: str, rows: csv.DictReader[str]) -> None:
    try:
        names = list(rows.fieldnames or ())
    except csv.Error as error:
        raise InputError(f"{path}, line {rows.reader.line_num}: the header: {error}", "correct it") from error
    if any(map(_is_foreign, names)):
        raise InputError(f"{path}, line 1: the header is not UTF-8", "save the file as UTF-8")
    if twice := sorted({name for name in names if names.count(name) > 1}):
        listed = ", ".join(map(repr, twice))
        raise InputError(f"{path}, line 1: the header names {listed} more than once", "rename one of them")


def _is_foreign(text: str) -> bool:
    """Whether bytes were read that are no UTF-8."""
    return any("\udc80" <= sign <= "\udcff" for sign in text)


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
    messages = _list(value.get("prompt", ""), "prompt", place)
    if messages and all(isinstance(message, dict) for message in messages):
        value["prompt"] = messages
    if "facts" in value:
        value["facts"] = record.parse(value["facts"], place, "`facts` is ")
    for name in ANSWERS:
        if (items := _list(value.get(name, ""), name, place)) is not None:
            value[name] = items
    return value


def _list(cell: str, name: str, place: record.Place) -> list[Any] | None:
    """The list that a cell holds as JSON; None for a cell that holds a text.

    Raises:
        BadRow: it looks like a list of texts or objects, and is no JSON.
    """
    text = cell.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        read = json.loads(text)
    except (ValueError, RecursionError):
        if _QUOTED.match(text):
            record.parse(text, place, f"`{name}` is ")  # says what is wrong
        return None
    return read if isinstance(read, list) else None


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
