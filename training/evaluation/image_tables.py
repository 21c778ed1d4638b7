"""Tables that hold their images: TSV files with base64, as VLMEvalKit has them, and the Parquet files of the hub.

Cells are read at once. Images stay in the file until somebody asks for their bytes: a TSV file is then read where they
lie, a Parquet file by row groups, of which one stays in memory.
"""

from __future__ import annotations

import ast
import base64
import binascii
import csv
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO, Any

from pipeline.base.images.image_files import open_regular
from training.errors import DataError
from training.evaluation.question import Picture

#: A shorter cell in the place of an image is the index of the row that has it.
_REFERENCE = 64


@dataclass(frozen=True)
class InsidePicture(Mapping[str, Any]):
    """A ``Picture`` whose bytes lie inside the file that ``path`` names; they are read whenever they are asked for."""

    path: str
    read: Callable[[], bytes] = field(repr=False)

    def __getitem__(self, key: str) -> Any:
        if key == "bytes":
            return self.read()
        if key == "path":
            return self.path
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(("bytes", "path"))

    def __len__(self) -> int:
        return 2


@dataclass(frozen=True)
class TableRow:
    """``cells`` has None where nothing stands; ``pictures`` has those of each column that holds some, and ``shared``
    says whether other rows may have them too. ``where`` says in an error which row it is."""

    where: str
    cells: Mapping[str, Any]
    pictures: Mapping[str, tuple[Picture, ...]]
    shared: bool = False

    def text(self, key: str) -> str:
        """
        >>> TableRow("a.tsv, row 1", {"A": 4, "B": None}, {}).text("A")
        '4'

        Raises:
            DataError: nothing stands there.
        """
        value = self.cells.get(key)
        if value is None:
            raise DataError(f"{self.where}: column {key!r} is empty or missing; give the benchmark's own file")
        return str(value)

    def maybe(self, key: str) -> str:
        """The text, empty where nothing stands."""
        return "" if self.cells.get(key) is None else str(self.cells[key])


def choose(data: Path, given: str | None, patterns: Sequence[str], option: str) -> list[Path]:
    """The files that ``given`` names in the folder, or those of the first pattern that has some: one file, or all parts
    of a table that is split into several Parquet files.

    Raises:
        DataError: there are none, or several tables; the message names ``option``, which chooses one.
    """
    for pattern in (given,) if given else patterns:
        paths = sorted(path for path in data.glob(pattern) if path.is_file() and not path.name.startswith("."))
        if paths and (len(paths) == 1 or all(path.suffix == ".parquet" for path in paths)):
            return paths
        if paths:
            names = ", ".join(str(path.relative_to(data)) for path in paths)
            raise DataError(f"{data} holds {names}; choose one with --option {option}={paths[0].relative_to(data)}")
    wanted = given or " or ".join(patterns)
    raise DataError(f"{data} holds no {wanted}; put the benchmark's own files there (docs/evaluation.md)")


def read(paths: Sequence[Path]) -> Iterator[TableRow]:
    """The rows of TSV or Parquet files, by their suffix.

    Raises:
        DataError: a file is malformed.
    """
    groups = _Groups()
    for path in paths:
        yield from _parquet(path, groups) if path.suffix == ".parquet" else _tsv(path)


def _cell(value: Any) -> Any:
    """Both kinds of files have been through pandas, which writes what is missing as "nan", or as no number."""
    missing = value in ("", "nan") or (isinstance(value, float) and math.isnan(value))
    return None if missing else value


# ------------------------------------------------------------------------------------------------------------------ TSV


@dataclass
class _Lines:
    """The lines of a file, decoded, and how far they reach."""

    file: IO[bytes]
    end: int = 0

    def __iter__(self) -> Iterator[str]:
        for line in self.file:
            encoding = "utf-8" if self.end else "utf-8-sig"
            self.end += len(line)
            yield line.decode(encoding)


def _tsv(path: Path) -> list[TableRow]:
    """
    Raises:
        DataError: the file is no table, a row has too few cells, or an image is none or refers to a row without one.
    """
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))  # images are longer than the default allows
    rows: list[TableRow] = []
    images: dict[str, tuple[Picture, ...]] = {}
    references: dict[int, str] = {}
    try:
        with open_regular(path) as file, open_regular(path) as raw:
            lines = _Lines(file)
            reader = csv.reader(lines, delimiter="\t")
            header = next(reader, [])
            start = lines.end
            for number, values in enumerate(reader, 1):
                where = f"{path}, row {number}"
                if not values:  # an empty line, such as the last one
                    start = lines.end
                    continue
                if len(values) != len(header):
                    raise DataError(f"{where} has {len(values)} cells, not {len(header)}; download it again")
                raw.seek(start)
                record, start = raw.read(lines.end - start), lines.end
                cells = dict(zip(header, map(_cell, values), strict=True))
                image, index = cells.pop("image", None), str(cells.get("index") or number)
                pictures: tuple[Picture, ...] = ()
                if image is not None and len(image) <= _REFERENCE:
                    references[len(rows)] = image
                elif image is not None:
                    images[index] = pictures = _of_cell(image, record, path, lines.end - len(record), index, where)
                rows.append(TableRow(where, cells, {"image": pictures}, shared=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path} cannot be read: {error}; download it again") from error
    for place, index in references.items():
        row = rows[place]
        if index not in images:
            raise DataError(f"{row.where}: its image is that of index {index!r}, which has none; download it again")
        rows[place] = replace(row, pictures={"image": images[index]})
        images.setdefault(row.maybe("index"), images[index])  # which a later row may refer to
    return rows


def _of_cell(cell: str, record: bytes, path: Path, start: int, index: str, where: str) -> tuple[Picture, ...]:
    """The images in a cell: base64, or a Python list of such. ``record`` are the row's bytes, which begin at
    ``start``."""
    texts = _texts(cell) if cell.startswith("[") else [cell]
    pictures: list[Picture] = []
    for place, text in enumerate(texts):
        offset = record.find(text.encode())
        if offset < 0:
            raise DataError(f"{where}: the image is not base64; download it again")
        name = f"{path}#{index}" + (f":{place + 1}" if len(texts) > 1 else "")
        pictures.append(InsidePicture(name, partial(_decode, path, start + offset, len(text), where)))
    return tuple(pictures)


def _texts(cell: str) -> list[str]:
    try:
        return [str(text) for text in ast.literal_eval(cell)]
    except (ValueError, SyntaxError):
        return [cell]


def _decode(path: Path, offset: int, size: int, where: str) -> bytes:
    """
    Raises:
        DataError: there is no base64.
    """
    try:
        with open_regular(path) as file:
            file.seek(offset)
            return base64.b64decode(file.read(size), validate=True)
    except (OSError, binascii.Error) as error:
        raise DataError(f"{where}: the image cannot be read: {error}; download it again") from error


# -------------------------------------------------------------------------------------------------------------- Parquet


def _parquet(path: Path, groups: _Groups) -> Iterator[TableRow]:
    """
    Raises:
        DataError: the file is none, or damaged.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as parquet:
            columns = [column.name for column in parquet.schema_arrow if _holds_images(column.type)]
            leaves = [parquet.schema.column(place).path for place in range(len(parquet.schema))]
            # Of images only what says how many there are.
            wanted = [leaf for leaf in leaves if leaf.split(".")[0] not in columns or not leaf.endswith(".bytes")]
            number = 0
            for group in range(parquet.num_row_groups):
                for place, values in enumerate(parquet.read_row_group(group, wanted).to_pylist()):
                    number += 1
                    cells = {key: _cell(value) for key, value in values.items()}
                    where = f"{path}, row {number}"
                    pictures = {}
                    for column in columns:
                        value = cells.pop(column, None)
                        count = 0 if value is None else len(value) if isinstance(value, list) else 1
                        pictures[column] = tuple(
                            InsidePicture(
                                f"{path}#{number}:{column}", partial(groups.load, path, group, place, column, at)
                            )
                            for at in range(count)
                        )
                    yield TableRow(where, cells, pictures)
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path} cannot be read: {error}; download it again") from error


def _holds_images(kind: Any) -> bool:
    """Whether a column holds what ``datasets`` stores an image as, or lists of them."""
    import pyarrow as pa

    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        kind = kind.value_type
    return pa.types.is_struct(kind) and "bytes" in [field.name for field in kind]


class _Groups:
    """State: a column of the row group that was read last; prompts are made in the order of the files."""

    def __init__(self) -> None:
        self._last: tuple[tuple[Path, int, str], Any] | None = None

    def load(self, path: Path, group: int, place: int, column: str, at: int) -> bytes:
        """
        Raises:
            DataError: there are no bytes, or the file is damaged.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        key = (path, group, column)
        if self._last is None or self._last[0] != key:
            self._last = None  # before the next is read
            try:
                with pq.ParquetFile(path) as parquet:
                    self._last = (key, parquet.read_row_group(group, [column])[column])
            except (OSError, pa.ArrowException) as error:
                raise DataError(f"{path} cannot be read: {error}; download it again") from error
        value = self._last[1][place].as_py()
        image = value[at] if isinstance(value, list) else value
        if image is None or not image["bytes"]:
            raise DataError(
                f"{path}, row group {group + 1}, row {place + 1}: column {column!r} has no bytes of an image; give the "
                "benchmark's own file"
            )
        data: bytes = image["bytes"]
        return data
