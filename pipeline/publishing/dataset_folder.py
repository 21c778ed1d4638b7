"""A folder as ``Dataset.save_to_disk`` leaves it, written batch by batch.

Written here because ``save_to_disk`` wants the whole table at once and puts a random fingerprint into it. The same rows
give the same bytes, in whatever tables they arrive.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.base import columns, files
from pipeline.base.columns import Ints
from pipeline.base.tables import IMAGE

#: Rows of a record batch; one with images ends sooner, with the row that reaches so many bytes of them.
BATCH_ROWS, _BATCH_BYTES = 1000, 64 << 20


@dataclass(frozen=True)
class WrittenFolder:
    """``digest`` is that of the bytes of all rows."""

    rows: int
    digest: str


def write(folder: Path, features: Mapping[str, Any], rows: Iterable[pa.Table], per_file: int) -> WrittenFolder:
    """Write ``rows`` as ``features`` say into ``folder``, which must not exist.

    Raises:
        OSError: the disk is full, or the folder is there.
    """
    folder.mkdir(parents=True)
    schema = pa.schema([(name, _arrow(feature)) for name, feature in features.items()])
    described = schema.with_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    names: list[str] = []
    total, digest = 0, hashlib.sha256()
    batches = _batches((table.cast(schema) for table in rows), schema, per_file)
    for number, of_file in itertools.groupby(batches, key=lambda batch: batch[0]):
        names.append(f"data-{number:05d}.arrow")
        total += _write_file(folder / names[-1], described, (table for _, table in of_file), digest)
    state: dict[str, Any] = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": digest.hexdigest()[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": "train",
    }
    info = {"citation": "", "description": "", "features": features, "homepage": "", "license": ""}
    for name, content in (("state.json", state), ("dataset_info.json", info)):
        files.write_text(folder / name, json.dumps(content, indent=2, sort_keys=name == "state.json") + "\n")
    return WrittenFolder(total, digest.hexdigest())


class _Hashed:
    """A file, and a digest of what is written to it."""

    closed = False

    def __init__(self, file: IO[bytes], digest: Any) -> None:
        self._file, self._digest = file, digest

    def write(self, data: Any) -> int:
        self._digest.update(data)
        return self._file.write(data)

    def flush(self) -> None: ...

    def close(self) -> None: ...


def _write_file(path: Path, schema: pa.Schema, batches: Iterable[pa.Table], digest: Any) -> int:
    rows = 0

    def write(file: IO[bytes]) -> None:
        nonlocal rows
        with pa.ipc.new_stream(pa.PythonFile(_Hashed(file, digest), mode="w"), schema) as writer:
            for table in batches:
                writer.write_table(table.replace_schema_metadata(schema.metadata))
                rows += len(table)

    files.write_atomic(path, write)
    return rows


def _batches(tables: Iterable[pa.Table], schema: pa.Schema, per_file: int) -> Iterator[tuple[int, pa.Table]]:
    """(number of the file, the rows of one record batch). Where batches end follows from the rows alone, not from the
    tables in which they arrive."""
    # Concatenation copies: no batch keeps a trace of the array it was cut from, such as bits beyond its last row.
    kept = [schema.empty_table()]
    number, in_file, rows, size = 0, 0, 0, 0
    for table in tables:
        reached = np.cumsum(_image_bytes(table))
        start = 0
        while start < len(table):
            room = min(BATCH_ROWS - rows, per_file - in_file)
            before = int(reached[start - 1]) if start else 0
            full = int(np.searchsorted(reached, before + _BATCH_BYTES - size)) + 1  # with the row that reaches it
            end = min(start + room, full, len(table))
            kept.append(table.slice(start, end - start))
            rows, in_file = rows + end - start, in_file + end - start
            size += int(reached[end - 1]) - before
            if rows == BATCH_ROWS or in_file == per_file or size >= _BATCH_BYTES:
                yield number, pa.concat_tables(kept).combine_chunks()
                kept, rows, size = kept[:1], 0, 0
            if in_file == per_file:
                number, in_file = number + 1, 0
            start = end
    if rows:
        yield number, pa.concat_tables(kept).combine_chunks()


def _image_bytes(table: pa.Table) -> Ints:
    """Of every row."""
    total = np.zeros(len(table), np.int64)
    for name in ("images", "similar_images"):
        if name in table.column_names:
            sizes = columns.counts(table[name])
            length = columns.ints(pc.binary_length(columns.items(table[name], "bytes")), 0)
            total += np.bincount(columns.rows(sizes), weights=length, minlength=len(sizes)).astype(np.int64)
    return total


def _arrow(feature: Any) -> pa.DataType:
    if isinstance(feature, list):
        return pa.list_(_arrow(feature[0]))
    kind = feature.get("_type")
    if kind == "Value":
        return pa.type_for_alias(feature["dtype"])
    if kind == "Image":
        return IMAGE
    return pa.struct([(name, _arrow(inner)) for name, inner in feature.items()])
