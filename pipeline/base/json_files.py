"""JSON files as datasets, their texts word for word.

Where a field has values of several kinds (a content that is now a text, now a list of parts), ``datasets`` stores the
values as JSON, but takes a text that happens to be JSON for such a value: ``"\\"STOP\\""`` becomes ``STOP``, ``"007"``
becomes 7. Where all texts of a field look like dates, Arrow makes dates of them, and JSON knows none. Columns with
such a field are therefore taken from the file itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.base import compressed, nesting
from pipeline.base.dataset_table import in_memory

if TYPE_CHECKING:
    import datasets

#: Bytes; the first is the default of ``datasets``. More than the second is not held at once.
_CHUNK, _MOST = 10 << 20, 1 << 30
_ROWS = 1000


class UnreadItem(ValueError):
    """A column has to be read value by value, and an item cannot be; says which, and of which file."""


def load(files: Sequence[Path]) -> datasets.Dataset:
    """The rows of the files, one after the other.

    Raises:
        UnreadItem: a field has values of several kinds, and an item cannot be read.
    """
    import datasets

    parts = [_as_they_come(file) for file in files]
    columns = list(dict.fromkeys(column for part in parts for column in part.column_names))
    changed = [column for column in columns if _is_changed([part.features.get(column) for part in parts])]
    if not changed:
        return datasets.concatenate_datasets(parts)
    read = [_columns(file, changed, len(part)) for file, part in zip(files, parts, strict=True)]
    kept = [column for column in columns if column not in changed]
    sides = [[part.select_columns(kept) for part in parts] if kept else [], read]
    whole = [datasets.concatenate_datasets(side) for side in sides if side]
    return datasets.concatenate_datasets(whole, axis=1).select_columns(columns)


def _as_they_come(file: Path) -> datasets.Dataset:
    import datasets

    # Kinds are told by the first chunk, and those of later ones are cast to them: all of the file is one, if it can be.
    chunk = min(max(_CHUNK, compressed.plain_size(file) + 1), _MOST)
    # Some columns of a conversation look to the library like those of an agent's log.
    options: dict[str, Any] = {"chunksize": chunk, "parse_agent_traces": False}
    return datasets.load_dataset("json", data_files=str(file), split="train", **options)


def _is_changed(features: Sequence[Any]) -> bool:
    """Whether a column has values of several kinds, or others than the file; ``features`` are what it is in each."""
    return any(_is_inexact(feature) or feature != features[0] for feature in features)


def _columns(file: Path, columns: Sequence[str], rows: int) -> datasets.Dataset:
    import datasets

    stored: dict[str, list[str | None]] = {column: [] for column in columns}
    try:
        for item in _objects(file):
            for column, texts in stored.items():
                texts.append(_stored(item.get(column)))
    except ValueError as error:
        raise UnreadItem(
            f"{file}: {error}; correct it (column(s) {', '.join(columns)} have values of several kinds, or dates, and "
            "are read value by value)"
        ) from error
    if (count := len(stored[columns[0]])) != rows:
        raise UnreadItem(f"{file}: has {count} items of which {rows} can be read; write an object per line")
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


def _is_inexact(feature: Any) -> bool:
    """Whether values of it may be others than those in the file."""
    import datasets

    if isinstance(feature, Mapping):
        return any(map(_is_inexact, feature.values()))
    if (inner := getattr(feature, "feature", None)) is not None:
        return _is_inexact(inner)
    return isinstance(feature, datasets.Json) or str(getattr(feature, "dtype", "")).startswith(("time", "date"))
