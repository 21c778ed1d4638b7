"""Preference datasets of other projects, read into ours: one file a schema, told by its columns.

What comes out has always the same columns and types::

    id                string, where the data has it
    images            list<Image(decode=False)>, empty for a row of text only
    prompt            list<{role, content: list<{type, text}>}>; the k-th part of type image is the k-th image
    chosen, rejected  the same, of text alone; the turns that follow the prompt
    rejected_images   where the data has it: as many images as the row has, or none; mDPO's rejected image
    similar_images    where the data has it: as many images as the row has, or none; SymMPO's similar image
    similar_chosen    the answer that is good for it, empty where there is none
    tools             where the data has it: what the chat template is given as tools, as JSON; null where there is none

Text is held in memory (tokenised, it will take more); images are neither copied nor opened.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import pyarrow as pa

from pipeline.base.dataset_table import in_memory
from pipeline.base.images.image_files import Roots
from training.errors import DataError
from training.formats import (
    batches,
    dataset_files,
    image_columns,
    images,
    llamafactory,
    mdpo,
    pds_dpo,
    rlaif_v,
    swift,
    trl,
)
from training.formats.row import answer, tools
from training.formats.schema import Schema

__all__ = ["FORMATS", "MESSAGES", "open", "read"]

FORMATS: dict[str, Schema] = {
    module.SCHEMA.name: module.SCHEMA for module in (trl, rlaif_v, mdpo, llamafactory, swift, pds_dpo)
}

_STRING = datasets.Value("string")
#: The type of prompt, chosen, rejected and similar_chosen.
MESSAGES = datasets.List({"role": _STRING, "content": datasets.List({"type": _STRING, "text": _STRING})})

_IDS = ("id", "idx")
_OTHER_IMAGES = ("rejected_images", "similar_images")


def open(
    path: str,
    name: str | Schema | None = None,
    split: str | None = None,
    image_root: str | None = None,
    rejected: bool = True,
    allowed_roots: Sequence[str] = (),
    allow_http: bool = False,
    check_images: bool = True,
) -> datasets.Dataset:
    """Open a dataset in any of ``FORMATS``; see ``dataset_files.load`` for ``path``, and ``read`` for the rest.

    Image paths are relative to ``image_root``, by default the folder of the dataset (of one that the library has
    fetched, its cache), and may not leave it but for ``allowed_roots``; images of the web need ``allow_http``. Without
    ``check_images`` they stay the paths that the rows name, whether anything is there or not.
    """
    folders = dataset_files.places(path) if image_root is None else (image_root,)
    roots = Roots.of((*folders, *allowed_roots), allow_http)
    return _read(dataset_files.load(path, split), name, path, roots, rejected, check_images)


def read(
    dataset: datasets.Dataset,
    name: str | Schema | None = None,
    path: str = "in memory",
    image_root: str | None = None,
    rejected: bool = True,
) -> datasets.Dataset:
    """The rows of ``dataset`` in the columns above, in order.

    Args:
        name: the schema, or a key of ``FORMATS``; None to tell it by the columns.
        path: what errors call the dataset.
        image_root: folder or URL that image paths are relative to and may not leave; None if the caller vouches for
            them.
        rejected: False where only good answers are wanted: the data need not have rejected ones, the result has none.
            A column ``rejected`` beside ``chosen`` is not read then.

    Raises:
        DataError: no schema fits, more than one does, or a row is not what its schema says.
    """
    return _read(dataset, name, path, Roots.of(() if image_root is None else (image_root,)), rejected)


def _read(
    dataset: datasets.Dataset,
    name: str | Schema | None,
    path: str,
    roots: Roots,
    rejected: bool,
    check_images: bool = True,
) -> datasets.Dataset:
    if len(dataset) == 0:
        raise DataError(f"dataset {path}: has no rows; nothing to train on")
    columns = frozenset(dataset.column_names)
    lacks = not rejected and "rejected" not in columns and "chosen" in columns
    schema = _schema(columns | ({"rejected"} if lacks else set()), name, path)
    # Other people's schemas may mean something else by the column.
    filled = not rejected and "chosen" in columns.intersection(schema.reads) and (lacks or schema.ours)
    names = _Names(dataset, path)
    places = images.Places(roots, names, check_images)
    pictures = _pictures(dataset, schema, path, places)
    parts = [column.dataset for column in pictures.values()]
    counts = {key: column.counts for key, column in pictures.items()}
    text = _texts(dataset, schema, counts, filled, names)
    parts.append(text if rejected else text.remove_columns("rejected"))
    order = ("id", "images", "prompt", "chosen", "rejected", *_OTHER_IMAGES, "similar_chosen", "tools")
    joined = datasets.concatenate_datasets(parts, axis=1)
    return joined.select_columns([column for column in order if column in joined.column_names])


class _Names:
    """What errors call a row: its number, and its id where it has one."""

    def __init__(self, dataset: datasets.Dataset, path: str) -> None:
        self.column = next((column for column in _IDS if column in dataset.column_names), None)
        self._dataset, self._path = dataset, path

    def __call__(self, index: int) -> str:
        row_id = None
        if self.column:
            with contextlib.suppress(ValueError, OverflowError):  # it is the id that cannot be read
                row_id = self._dataset.with_format(None).select_columns([self.column])[index].get(self.column)
        return f"dataset {self._path}: row {index}" + (f" (id {row_id})" if row_id is not None else "")


def _schema(columns: frozenset[str], name: str | Schema | None, path: str) -> Schema:
    if isinstance(name, str) and name not in FORMATS:
        raise DataError(f"dataset {path}: dataset_format={name} is unknown; known: {', '.join(FORMATS)}")
    if name:
        fitting = [FORMATS[name] if isinstance(name, str) else name]
    else:
        fitting = [schema for schema in FORMATS.values() if schema.fits(columns)]
    if len(fitting) > 1:
        names = [schema.name for schema in fitting]
        raise DataError(
            f"dataset {path}: its columns {', '.join(sorted(columns))} fit {' and '.join(names)}; "
            f"set dataset_format={names[0]} or {' or '.join(names[1:])}"
        )
    schema = fitting[0] if fitting else min(FORMATS.values(), key=lambda schema: len(schema.missing(columns)))
    missing = schema.missing(columns)
    if missing or not fitting:
        raise DataError(
            f"dataset {path}: missing column(s) {', '.join(missing)}; it has {', '.join(sorted(columns))}. "
            f"Read as {schema.name}; rename columns, or see docs/datasets.md for {', '.join(FORMATS)}"
        )
    return schema


def _pictures(
    dataset: datasets.Dataset, schema: Schema, path: str, places: images.Places
) -> dict[str, images.ImageColumn]:
    """The columns of images by our names for them."""
    source = image_columns.find(dataset, path, places.row)
    if source is None:
        result = {"images": images.none(len(dataset), "images")}
    else:
        result = {"images": images.rename(images.read(*source, path, places), "images")}
    # Images under a column that only other people's code reads would be lost without a word too.
    others = (*(schema.reads if schema.ours else ()), *_OTHER_IMAGES, "similar_chosen", "tools")
    image_columns.check_strays(dataset, others, result["images"].counts, places.row)
    for column in _OTHER_IMAGES:
        if column in dataset.column_names:
            result[column] = images.read(dataset, column, path, places)
    if "rejected_images" in result:
        same = images.same(result["rejected_images"], result["images"])
        if any(same) and not schema.repeats:
            raise DataError(
                f"{places.row(same.index(True))}: rejected_images are the images themselves, so neither is worse; "
                "give other ones, or an empty list"
            )
        if any(same):
            result["rejected_images"] = images.without(result["rejected_images"], same)
    return result


def _texts(
    dataset: datasets.Dataset, schema: Schema, counts: Mapping[str, Sequence[int]], filled: bool, names: _Names
) -> datasets.Dataset:
    """``filled``: the chosen answer stands in the place of the rejected one, whatever that is."""
    similar = "similar_images" in counts
    reads = (column for column in schema.reads if not (filled and column == "rejected"))
    wanted = (*reads, names.column, "similar_chosen" if similar else None, "tools")
    present = [column for column in dict.fromkeys(wanted) if column in dataset.column_names]
    features = datasets.Features(dict.fromkeys(("prompt", "chosen", "rejected"), MESSAGES))
    if names.column:
        features["id"] = _STRING
    if similar:
        features["similar_chosen"] = MESSAGES
    if "tools" in present:
        features["tools"] = _STRING
    made, start = [], 0
    for batch in batches.rows(dataset.select_columns(present), names):
        converted = []
        for index, values in enumerate(batch, start):
            if filled:
                values = {**values, "rejected": values["chosen"]}
            try:
                converted.append(_convert(values, schema, {key: n[index] for key, n in counts.items()}, names.column))
            except DataError as error:
                raise DataError(f"{names(index)}: {error}") from error
            except (AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
                # Rows are as odd as what wrote them: what no schema foresaw is an error of this one.
                raise DataError(
                    f"{names(index)}: is not what {schema.name} says ({type(error).__name__}: {error}); correct or "
                    "drop the row"
                ) from error
        made.append(batches.record_batch(converted, features.arrow_schema, start, names))
        start += len(batch)
    return in_memory(pa.Table.from_batches(made), features)


def _name(value: Any, column: str) -> str | None:
    """What a row is called; None where it has no name."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not (isinstance(value, int) or (isinstance(value, float) and value.is_integer())):
        raise DataError(f"column {column} is {value!r:.80}; give a text or a whole number")
    return str(int(value))


def _convert(
    row: Mapping[str, Any], schema: Schema, counts: Mapping[str, int], id_column: str | None
) -> dict[str, Any]:
    number = counts["images"]
    result: dict[str, Any] = schema.convert(row, number)._asdict()
    for column in _OTHER_IMAGES:
        if counts.get(column, 0) not in (0, number):
            raise DataError(
                f"column {column} has {counts[column]} image(s) for a prompt about {number}; "
                "make the two numbers equal, or give an empty list"
            )
    if id_column:
        result["id"] = _name(row[id_column], id_column)
    if "tools" in row:
        result["tools"] = tools(row["tools"])
    if "similar_images" in counts:
        good = row.get("similar_chosen")
        if bool(good) != (counts["similar_images"] > 0):
            raise DataError("has only one of similar_images and similar_chosen; give both, or neither")
        result["similar_chosen"] = answer(good, "similar_chosen") if good else []
    return result
