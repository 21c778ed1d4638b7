"""A CSV file with a header: columns as ``jsonl``; facts, messages and several images of a cell are JSON."""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.config.source import TableSource
from pipeline.errors import InputError
from pipeline.sources import Entry, files, record, seen
from pipeline.sources.roots import root_of


def read(spec: TableSource) -> Iterator[Entry]:
    for path in files.expand(spec.path):
        root, name = root_of(spec.root, path, spec.allow_http), files.base_name(path)
        for number, cells in _rows(path):
            place = record.Place(path, "line", number)
            yield from record.entries(_value(cells, place), place, f"{name}:{number}", root, spec.prompts)


def stamp(spec: TableSource) -> list[str]:
    return [seen.stamp(path, spec, _columns) for path in files.expand(spec.path)]


def _rows(path: str) -> Iterator[tuple[int, dict[str, str]]]:
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # facts of a crowded image are longer than the default allows
    with files.reading(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig", newline="") as text:
        rows = csv.DictReader(text, strict=True)
        try:
            for row in rows:
                if None in row or None in row.values():
                    raise InputError(
                        f"{path}, line {rows.line_num}: not as many cells as the header has", "quote cells with commas"
                    )
                yield rows.line_num, row
        except csv.Error as error:
            raise InputError(f"{path}, line {rows.line_num}: {error}", "correct the line") from error


def _value(cells: Mapping[str, str], place: record.Place) -> dict[str, Any]:
    value: dict[str, Any] = {name: text for name, text in cells.items() if text or name == "prompt"}
    for name in ("images", "image"):
        if name in cells:
            value[name] = _images(cells[name], place)
    if value.get("prompt", "").lstrip().startswith('[{"'):
        value["prompt"] = record.parse(value["prompt"], place, "`prompt` is ")
    if "facts" in value:
        value["facts"] = record.parse(value["facts"], place, "`facts` is ")
    return value


def _images(cell: str, place: record.Place) -> Any:
    if cell.lstrip().startswith("["):
        return record.parse(cell, place, "`images` is ")
    return [cell] if cell else []


def _columns(path: str) -> Iterator[list[str]]:
    for number, cells in _rows(path):
        place = record.Place(path, "line", number)
        for name in ("images", "image"):
            if name in cells:
                yield [item for item in _images(cells[name], place) if isinstance(item, str)]
