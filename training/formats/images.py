"""A column of images as ``list<Image(decode=False)>``: bytes stay where they are, paths stay paths and are checked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.base.dataset_table import in_memory, retype
from pipeline.base.images.image_files import Refused, Roots, check_regular, is_url, local, public
from training.errors import DataError

FEATURE = datasets.List(datasets.Image(decode=False))
_IMAGE = pa.struct({"bytes": pa.binary(), "path": pa.string()})
#: How it is stored.
IMAGES = pa.list_(_IMAGE)
_BATCH = 1000
#: What errors call a row.
Name = Callable[[int], str]


@dataclass(frozen=True)
class ImageColumn:
    """A dataset of this one column, and how many images each row has."""

    dataset: datasets.Dataset
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Places:
    """Where images may lie that are given as paths, and what those are relative to. ``row`` names a row in errors.
    Without ``check`` paths stay as they are: nobody will open them."""

    roots: Roots
    row: Name
    check: bool = True
    _seen: set[str] = field(default_factory=set)

    def find(self, path: str | None, row: int) -> str:
        """The absolute path or URL. A URL is not asked whether it exists.

        Raises:
            DataError: there is no path, nothing it could be relative to, no such file, or none that may be read.
        """
        if not path:
            raise DataError(f"{self.row(row)}: an image has neither bytes nor a path; give one, or drop the row")
        if not self.check:
            return path
        if path.startswith("data:"):
            raise DataError(
                f"{self.row(row)}: image {path[:60]!r} is given as a data URL; write it to a file and give its path, "
                "or its bytes in a parquet file"
            )
        if not self.roots.roots and not is_url(path) and not os.path.isabs(path):
            raise DataError(
                f"{self.row(row)}: image {path!r:.200} is a relative path, and the dataset has no folder it could be "
                "relative to; set image_root to the folder that holds the images"
            )
        try:
            full = self.roots.resolve(path)
        except Refused as error:
            raise DataError(f"{self.row(row)}: image {error.reason:.500}") from error
        here = local(full)
        if here is not None and here not in self._seen:
            try:
                check_regular(here, os.stat(here))
            except OSError as error:
                reason = (
                    "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
                )
                raise DataError(
                    f"{self.row(row)}: image {public(here)!r:.500} {reason}; set image_root to the folder that "
                    "image paths are relative to, or drop the row"
                ) from error
            self._seen.add(here)
        return here if here is not None else full


def read(dataset: datasets.Dataset, column: str, path: str, places: Places) -> ImageColumn:
    """The images of ``column``, one or a list of them per row; null is none.

    Encoded images are not copied, but where a column of single images has nulls among them.

    Raises:
        DataError: the column holds something else, or an image has no file.
    """
    only = dataset.select_columns([column])
    arrays: list[pa.Array] = []
    as_is = _is_list_of_images(only.features[column])
    for start, array in _with_starts(
        _paths_of_json(only, column, places.row) if is_json(only, column) else _arrays(only)
    ):
        images, kept = _resolve(array, start, places, wrong(column, only.features[column], path))
        as_is = as_is and kept
        arrays.append(images)
    counts = tuple(count for array in arrays for count in pc.list_value_length(array).to_pylist())
    # A table that is mapped from disk is handed to other processes by its name, one in memory byte by byte.
    return ImageColumn(
        retype(only, datasets.Features({column: FEATURE})) if as_is else _dataset(arrays, column), counts
    )


def batches(only: datasets.Dataset, column: str, row: Name, size: int) -> Iterator[pa.Array]:
    """The column of a dataset that has no other, so many rows at a time."""
    if is_json(only, column):
        yield from _paths_of_json(only, column, row, size, blank=True)
        return
    for table in only.with_format("arrow").iter(batch_size=size):
        yield table.column(0).combine_chunks()


def list_array(counts: pa.Array, data: pa.Array, paths: pa.Array) -> pa.Array:
    """A list array with so many images per row."""
    offsets = pa.concat_arrays([pa.array([0], pa.int32()), pc.cast(pc.cumulative_sum(counts), pa.int32())])
    return pa.ListArray.from_arrays(offsets, pa.StructArray.from_arrays([data, paths], fields=list(_IMAGE)))


def none(rows: int, column: str) -> ImageColumn:
    """A column in which no row has an image."""
    return ImageColumn(_dataset([pa.array([[]] * rows, IMAGES)], column), (0,) * rows)


def rename(images: ImageColumn, name: str) -> ImageColumn:
    (old,) = images.dataset.column_names
    return images if old == name else replace(images, dataset=images.dataset.rename_column(old, name))


def same(left: ImageColumn, right: ImageColumn) -> list[bool]:
    """For every row, whether it has images and both columns hold the same."""
    rows = zip(chain.from_iterable(_arrays(left.dataset)), chain.from_iterable(_arrays(right.dataset)), strict=True)
    return [len(row_images) > 0 and row_images.equals(other) for row_images, other in rows]


def without(images: ImageColumn, rows: list[bool]) -> ImageColumn:
    """The column with no images in ``rows``."""
    (column,) = images.dataset.column_names
    arrays, start = [], 0
    for array in _arrays(images.dataset):
        gone = pa.array(rows[start : start + len(array)])
        arrays.append(pc.if_else(gone, pa.scalar([], array.type), array))
        start += len(array)
    counts = tuple(0 if gone else count for gone, count in zip(rows, images.counts, strict=True))
    return ImageColumn(_dataset(arrays, column), counts)


def _is_list_of_images(feature: Any) -> bool:
    return isinstance(feature, datasets.List) and isinstance(feature.feature, datasets.Image)


def is_json(only: datasets.Dataset, column: str) -> bool:
    """Whether values of several kinds stand in the column; then Arrow sees texts of JSON."""
    feature = only.features[column]
    return isinstance(getattr(feature, "feature", feature), datasets.Json)


def is_encoded(feature: Any) -> bool:
    """Whether a column of this type may hold the bytes of images, or a list of them."""
    inner = getattr(feature, "feature", feature)
    fields = inner.values() if isinstance(inner, dict) else [inner]
    return any(isinstance(each, datasets.Image) or "binary" in str(getattr(each, "dtype", "")) for each in fields)


def wrong(column: str, what: Any, path: str) -> DataError:
    return DataError(
        f"dataset {path}: column {column} has type {what}, not a list of images; cast it to List(Image()), "
        "or give paths"
    )


def _with_starts(arrays: Iterator[pa.Array]) -> Iterator[tuple[int, pa.Array]]:
    """With the number of the first row."""
    start = 0
    for array in arrays:
        yield start, array
        start += len(array)


def _paths_of_json(
    only: datasets.Dataset, column: str, row: Name, size: int = _BATCH, blank: bool = False
) -> Iterator[pa.Array]:
    """``blank``: an empty text is no image."""
    start = 0
    for batch in only.with_format(None).iter(batch_size=size):
        values = [(value or None) if blank else value for value in batch[column]]
        yield pa.array([_structs(value, column, row, start + at) for at, value in enumerate(values)], IMAGES)
        start += len(values)


def _arrays(only: datasets.Dataset) -> Iterator[pa.Array]:
    for table in only.with_format("arrow").iter(batch_size=_BATCH):
        yield from table.column(0).chunks  # as they lie; combining them would copy


def _structs(value: Any, column: str, row: Name, index: int) -> list[dict[str, Any]]:
    """Images of a row that came as JSON, where bytes cannot be.

    Raises:
        DataError: one is given otherwise than by its path; names the row.
    """
    items = value if isinstance(value, list) else [] if value is None else [value]
    result = []
    for item in items:
        name = item.get("path") if isinstance(item, dict) else item
        if not isinstance(name, str):
            raise DataError(
                f"{row(index)}: column {column} has {item!r:.80} for an image; give its path, or drop the row"
            )
        result.append({"bytes": None, "path": name})
    return result


def _resolve(array: pa.Array, start: int, places: Places, wrong: DataError) -> tuple[pa.Array, bool]:
    """The batch as a list array whose paths can be opened, and whether it was that already."""
    if _is_list(array.type):
        values = array.flatten()
        counts = pc.fill_null(pc.cast(pc.list_value_length(array), pa.int32()), 0)
    else:
        values = array.drop_null() if array.null_count else array
        counts = pc.cast(array.is_valid(), pa.int32())
    data, paths = bytes_and_paths(values, wrong)
    as_is = array.type == IMAGES and not array.null_count
    unread = pc.indices_nonzero(pc.is_null(data)).to_pylist()
    if unread:
        rows = [start + row for row, count in enumerate(counts.to_pylist()) for _ in range(count)]
        try:
            names = paths.to_pylist()
        except ValueError as error:
            raise DataError(
                f"{places.row(start)} or one of the {len(array) - 1} after it: an image's path is not UTF-8; "
                "correct or drop the row"
            ) from error
        resolved = {index: places.find(names[index], rows[index]) for index in unread}
        if any(names[index] != name for index, name in resolved.items()):
            as_is = False
            paths = pa.array([resolved.get(index, name) for index, name in enumerate(names)], pa.string())
    if as_is:
        return array, True
    return list_array(counts, data, paths), False


def bytes_and_paths(values: pa.Array, wrong: DataError) -> tuple[pa.Array, pa.Array]:
    """Images in any of the shapes that datasets store them in; what is not given is null."""
    kind = values.type
    if pa.types.is_struct(kind) and {field.name for field in kind} <= {"bytes", "path"}:
        parts = {field.name: pc.struct_field(values, field.name) for field in kind}
        if "bytes" in parts and pa.types.is_string(parts["bytes"].type) and parts["bytes"].null_count < len(values):
            raise wrong  # base64, or what else JSON has for bytes
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        parts = {"path": values}
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind):
        parts = {"bytes": values}
    elif pa.types.is_null(kind):
        parts = {}
    else:
        raise wrong
    try:
        data, paths = (
            pc.cast(parts[field.name], field.type) if field.name in parts else pa.nulls(len(values), field.type)
            for field in _IMAGE
        )
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise wrong from error
    return data, paths


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _dataset(arrays: list[pa.Array], column: str) -> datasets.Dataset:
    table = pa.table({column: pa.chunked_array(arrays, IMAGES)})
    return in_memory(table, datasets.Features({column: FEATURE}))
