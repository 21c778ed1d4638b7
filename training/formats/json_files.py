"""JSON files as datasets, their texts word for word.

Where a field has values of several kinds (a content that is now a text, now a list of parts), ``datasets`` stores the
values as JSON, but takes a text that happens to be JSON for such a value: ``"\\"STOP\\""`` becomes ``STOP``, ``"007"``
becomes 7. Columns with such a field are therefore taken from the file itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
from datasets.packaged_modules.json import json as json_module

from pipeline.base import nesting
from training.errors import DataError
from training.formats.table import in_memory

SUFFIXES = frozenset({".json", ".jsonl"})
#: Bytes; the first is the default of ``datasets``. More than the second is not held at once.
_CHUNK, _MOST = 10 << 20, 1 << 30
_ROWS = 1000


def load(files: Sequence[Path]) -> datasets.Dataset:
    """The rows of the files, one after the other.

    Raises:
        DataError: a field has values of several kinds, and an item cannot be read.
    """
    parts = [_as_they_come(file) for file in files]
    columns = list(dict.fromkeys(column for part in parts for column in part.column_names))
    mixed = [column for column in columns if _is_mixed([part.features.get(column) for part in parts])]
    if not mixed:
        return datasets.concatenate_datasets(parts)
    read = [_columns(file, mixed, len(part)) for file, part in zip(files, parts, strict=True)]
    kept = [column for column in columns if column not in mixed]
    sides = [[part.select_columns(kept) for part in parts] if kept else [], read]
    whole = [datasets.concatenate_datasets(side) for side in sides if side]
    return datasets.concatenate_datasets(whole, axis=1).select_columns(columns)


def load_folder(path: str, config: str | None) -> datasets.DatasetDict | None:
    """The splits of a local folder of JSON files; None where other files are its rows."""
    builder = datasets.load_dataset_builder(path, config)
    if not isinstance(builder, json_module.Json) or builder.config.field is not None:
        return None
    splits = {str(split): [Path(file) for file in files] for split, files in builder.config.data_files.items()}
    if not all(file.is_file() and file.suffix.lower() in SUFFIXES for files in splits.values() for file in files):
        return None
    return datasets.DatasetDict({split: load(files) for split, files in splits.items()})


def _as_they_come(file: Path) -> datasets.Dataset:
    # Kinds are told by the first chunk, and those of later ones are cast to them: all of the file is one, if it can be.
    chunk = min(max(_CHUNK, file.stat().st_size + 1), _MOST)
    return datasets.load_dataset("json", data_files=str(file), chunksize=chunk, split="train")


def _is_mixed(features: Sequence[Any]) -> bool:
    """Whether a column has values of several kinds; ``features`` are what it is in each file."""
    return any(_has_json(feature) or feature != features[0] for feature in features)


def _columns(file: Path, columns: Sequence[str], rows: int) -> datasets.Dataset:
    stored: dict[str, list[str | None]] = {column: [] for column in columns}
    try:
        for item in _objects(file):
            for column, texts in stored.items():
                texts.append(_stored(item.get(column)))
    except ValueError as error:
        raise DataError(
            f"dataset {file}: {error}; correct it (column(s) {', '.join(columns)} have values of several kinds, and "
            "are read value by value)"
        ) from error
    if (count := len(stored[columns[0]])) != rows:
        raise DataError(f"dataset {file}: has {count} items of which {rows} can be read; write an object per line")
    table = pa.table({column: _array(texts) for column, texts in stored.items()})
    return in_memory(table, datasets.Features({column: datasets.Json() for column in columns}))


def _array(texts: Sequence[str | None]) -> pa.ChunkedArray:
    chunks = [pa.array(texts[start : start + _ROWS], pa.json_()) for start in range(0, len(texts), _ROWS)]
    return pa.chunked_array(chunks, pa.json_())


def _objects(file: Path) -> Iterator[Mapping[str, Any]]:
    for number, item in enumerate(nesting.items(file), 1):
        if not isinstance(item, Mapping):
            raise ValueError(f"item {number} is {item!r:.80}, no object")
        yield item


def _stored(value: Any) -> str | None:
    """``Json.decode_example`` turned round: a text is JSON of a text, too."""
    return None if value is None else json.dumps(value)


def _has_json(feature: Any) -> bool:
    if isinstance(feature, Mapping):
        return any(map(_has_json, feature.values()))
    inner = getattr(feature, "feature", None)
    return isinstance(feature, datasets.Json) or (inner is not None and _has_json(inner))
