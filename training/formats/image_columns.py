"""Which column of a dataset holds its images: the rule of ``pipeline.base.images.references``, over whole columns.

Where one column has the images of all rows it is taken as it lies; otherwise every row has those of its own column.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.base.dataset_table import in_memory
from pipeline.base.images import references
from training.errors import DataError
from training.formats import images
from training.formats.images import Name

Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]

#: Rows that are looked at at a time; and those of columns of encoded images, of which Arrow holds 2 GiB in one array.
_BATCH, _ENCODED = 1000, 32


def find(dataset: datasets.Dataset, path: str, name: Name) -> tuple[datasets.Dataset, str] | None:
    """A dataset in which one column has the images of every row, and what that is called; None if there is no image.

    Raises:
        DataError: two columns hold different images for a row, or one holds a video or a sound.
    """
    columns = [column for column in (*references.OTHERS, *references.IMAGES) if column in dataset.column_names]
    if len(columns) == 1 and columns[0] in references.IMAGES and not _may_be_blank(dataset, columns[0]):
        return dataset, columns[0]
    chosen = np.concatenate([*_column_numbers(dataset, columns, name), np.empty(0, np.int64)])
    used = np.unique(chosen[chosen >= 0])
    if not used.size:
        return None
    if len(used) == 1:
        column = columns[int(used[0])]
        if not _may_be_blank(dataset, column) or (chosen >= 0).all():
            return dataset, column
    merged = pa.chunked_array(_merge(dataset, columns, chosen, path, name), images.IMAGES)
    return in_memory(pa.table({"images": merged}), datasets.Features({"images": images.FEATURE})), "images"


def check_strays(dataset: datasets.Dataset, read: Collection[str], counts: Sequence[int], name: Name) -> None:
    """Images under a name that is not looked at would make a row one of text only, without a word.

    Raises:
        DataError: a row without images has such a column.
    """
    looked_at = {*read, *references.IMAGES, *references.OTHERS, *references.NAMES}
    others = [column for column in dataset.column_names if column not in looked_at]
    bare = np.flatnonzero(np.array(counts) == 0)
    if not bare.size or not others:
        return
    rows = dataset.select_columns(others).select(bare).with_format("arrow")
    for start, table in enumerate(rows.iter(batch_size=_BATCH)):
        for column in others:
            values = _values(table[column])
            if isinstance(rows.features[column], datasets.Json):  # stored as its JSON
                values = [value if value is None else json.loads(value) for value in values]
            for at, value in enumerate(values, start * _BATCH):
                if references.is_stray(column, value):
                    raise _error(name(int(bare[at])), references.stray(column, value))


def _values(column: pa.ChunkedArray) -> list[Any]:
    """What nobody reads need not be readable: null for a value that Python cannot hold."""
    try:
        return list(column.to_pylist())
    except (ValueError, OverflowError):
        return [_value(scalar) for scalar in column]


def _value(scalar: Any) -> Any:
    try:
        return scalar.as_py()
    except (ValueError, OverflowError):
        return None


def _error(row: str, problem: references.Unclear) -> DataError:
    return DataError(f"{row}: column {problem}")


def _may_be_blank(dataset: datasets.Dataset, column: str) -> bool:
    """Whether an empty text may stand in the column for no image."""
    feature = dataset.features[column]
    return isinstance(feature, datasets.Json) or getattr(feature, "dtype", None) in ("string", "large_string")


def _batches(dataset: datasets.Dataset, columns: Sequence[str], name: Name) -> Iterator[dict[str, pa.Array]]:
    size = _ENCODED if any(images.is_encoded(dataset.features[column]) for column in columns) else _BATCH
    parts = [images.batches(dataset.select_columns([column]), column, name, size) for column in columns]
    for arrays in zip(*parts, strict=True):
        yield dict(zip(columns, arrays, strict=True))


def _column_numbers(dataset: datasets.Dataset, columns: Sequence[str], name: Name) -> Iterator[Numbers]:
    """The number of the column that has each row's images, -1 for none, some rows at a time."""
    paths = np.array([[column in references.PATHS] for column in columns])
    media = sum(column in references.OTHERS for column in columns)  # they come first
    start = 0
    for arrays in _batches(dataset, columns, name):
        filled = np.array([_has_images(array) for array in arrays.values()])
        embedded = np.array([_has_bytes(array) for array in arrays.values()])
        # A path that only says where embedded images came from is not read before them, whatever its key.
        beside = paths & ~embedded & embedded.any(0)
        first = np.where(filled.any(0), (filled & ~beside).argmax(0), -1)
        for at in np.flatnonzero((first >= 0) & (first < media))[:1]:
            raise _error(name(start + int(at)), references.unread_media(columns[first[at]]))
        for at in np.flatnonzero(filled.sum(0) > 1).tolist():
            ours = columns[first[at]]
            for other in (columns[index] for index in np.flatnonzero(filled[:, at]) if index != first[at]):
                if other in references.PATHS and embedded[first[at], at]:
                    continue
                # A path that is no text is found out when it is looked for.
                if not references.agree(_value(arrays[ours][at]), _value(arrays[other][at]), other):
                    raise _error(name(start + at), references.two(ours, other))
        yield first
        start += len(first)


def _has_images(array: pa.Array) -> Mask:
    mask: Mask = _has_value(array).to_numpy(zero_copy_only=False)
    return mask


def _has_value(array: pa.Array) -> pa.Array:
    kind = array.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pc.fill_null(pc.greater(pc.list_value_length(array), 0), False)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pc.fill_null(pc.not_equal(array, ""), False)
    mask = array.is_valid()
    if pa.types.is_struct(kind) and kind.num_fields:
        parts = [_has_value(pc.struct_field(array, field.name)) for field in kind]
        for part in parts[1:]:
            parts[0] = pc.or_(parts[0], part)
        mask = pc.and_(mask, parts[0])
    return mask


def _has_bytes(array: pa.Array) -> Mask:
    """The rows whose images, or some of them, come with their bytes."""
    result = np.zeros(len(array), bool)
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        result[pc.list_parent_indices(array).to_numpy(zero_copy_only=False)[_has_bytes(array.flatten())]] = True
        return result
    if pa.types.is_struct(array.type) and array.type.get_field_index("bytes") >= 0:
        array = pc.struct_field(array, "bytes")
    if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        result |= array.is_valid().to_numpy(zero_copy_only=False)
    return result


def _merge(
    dataset: datasets.Dataset, columns: Sequence[str], chosen: Numbers, path: str, name: Name
) -> Iterator[pa.Array]:
    start = 0
    for arrays in _batches(dataset, columns, name):
        parts = {column: _list_array(array, dataset, column, path) for column, array in arrays.items()}
        size = len(next(iter(parts.values())))
        numbers = chosen[start : start + size]
        used = np.unique(numbers[numbers >= 0])
        nothing = pa.array([[]], images.IMAGES)
        every = pa.concat_arrays([nothing, *(parts[columns[index]] for index in used)])
        place = np.searchsorted(used, numbers) * size + np.arange(size) + 1
        yield every.take(pa.array(np.where(numbers >= 0, place, 0)))
        start += size


def _list_array(array: pa.Array, dataset: datasets.Dataset, column: str, path: str) -> pa.Array:
    """The batch as a list array of images, their paths as they are written."""
    wrong = images.wrong(column, dataset.features[column], path)
    if pa.types.is_list(array.type) or pa.types.is_large_list(array.type):
        values, counts = array.flatten(), pc.fill_null(pc.cast(pc.list_value_length(array), pa.int32()), 0)
    else:
        there = _has_value(array)
        values, counts = array.filter(there), pc.cast(there, pa.int32())
    return images.list_array(counts, *images.bytes_and_paths(values, wrong))
