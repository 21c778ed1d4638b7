"""A dataset of the ``datasets`` library: a folder of ``save_to_disk``, or a name, which is streamed.

Names are loaded as data only; the library runs no code of a repository, and is not asked to.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.base.dataset_files import check
from pipeline.base.errors import InputError
from pipeline.base.images import references
from pipeline.sources.config import Columns, HuggingFaceSource
from pipeline.sources.readers import files, record
from pipeline.sources.readers.answer import COLUMNS as ANSWERS
from pipeline.sources.readers.protocol import Entry
from pipeline.sources.readers.roots import Root


def read(spec: HuggingFaceSource) -> Iterator[Entry]:
    dataset = _open(spec)
    rows, features = _rows(dataset), dataset.features.to_dict() if dataset.features is not None else {}
    root = Root(spec.root or (spec.path if _on_disk(spec) else f"hf://datasets/{spec.path}"), spec.allow_http)
    name = files.base_name(spec.path)
    for number, row in enumerate(rows, 1):
        place, source = record.Place(spec.path, "row", number), f"{name}:{number}"
        yield from record.attempt(source, _entries, row, features, spec, place, source, root)


def _entries(
    row: dict[str, Any] | record.BadRow,
    features: Mapping[str, Any],
    spec: HuggingFaceSource,
    place: record.Place,
    source: str,
    root: Root,
) -> Iterator[Entry]:
    if isinstance(row, record.BadRow):
        raise record.BadRow(f"{place}: {row.message}", row.remedy)
    value = record.name_labels(_value(row, spec, place), _names(spec), features, place)
    return record.entries(value, place, source, root, spec.prompts)


def _names(spec: HuggingFaceSource) -> dict[str, str]:
    """Our columns -> theirs, but for the images. Without a name for the answers, they have any of the usual ones."""
    columns = spec.columns
    usual = {name: name for name in ANSWERS} if columns.answer == Columns().answer else {"answer": columns.answer}
    names = {"prompt": columns.prompt, "facts": columns.facts, **usual}
    return {name: column for name, column in names.items() if column is not None}


def stamp(spec: HuggingFaceSource) -> Any:
    """Of a folder, its files; a name is taken at its word, so give a revision."""
    if not _on_disk(spec):
        return [spec.path, spec.name, spec.split, spec.revision]
    suffixes = (".arrow", ".json", ".parquet", ".csv", ".jsonl")
    return files.digest(f"{name}:{told}" for name, told in files.walk(spec.path, suffixes))


def _on_disk(spec: HuggingFaceSource) -> bool:
    return "://" in spec.path or os.path.isdir(spec.path)


def _open(spec: HuggingFaceSource) -> Any:
    import datasets

    try:
        if _on_disk(spec):
            if (here := files.local(spec.path)) is not None:
                check(here)
            dataset = datasets.load_from_disk(spec.path)
        else:
            dataset = datasets.load_dataset(
                spec.path, spec.name, split=spec.split, revision=spec.revision, streaming=True
            )
    except Exception as error:  # the library raises OSError, ValueError and errors of the hub
        message = " ".join(str(error).split())[:300]
        remedy = "check source.path (a folder written by save_to_disk, or a name), source.split and source.revision"
        raise InputError(
            f"source.path: cannot open dataset {spec.path} ({type(error).__name__}: {message})", remedy
        ) from error
    if isinstance(dataset, datasets.DatasetDict):
        if spec.split not in dataset:
            raise InputError(
                f"{spec.path} has no split {spec.split!r}", f"set source.split to one of {', '.join(dataset)}"
            )
        return dataset[spec.split]
    return dataset


def _rows(dataset: Any) -> Iterator[dict[str, Any] | record.BadRow]:
    """Rows with images as ``{"bytes", "path"}``: in Arrow's format the library decodes nothing."""
    import pyarrow as pa

    for table in dataset.with_format("arrow").iter(batch_size=32):
        try:
            table.validate(full=True)  # the library maps files as they are, and a damaged one points anywhere
        except pa.ArrowInvalid as error:
            if "UTF8" not in str(error):  # that is one row's
                raise InputError(f"the dataset is damaged ({str(error)[:200]})", "write it again") from error
        yield from record.values(table)


def _value(row: dict[str, Any], spec: HuggingFaceSource, place: record.Place) -> dict[str, Any]:
    columns = spec.columns
    named = columns.images != Columns().images  # otherwise it may have any of the usual names
    if columns.images not in row and (named or not row.keys() & set(references.IMAGES)):
        raise record.missing(columns.images, row, place, "or set source.columns.images")
    if columns.prompt is not None and columns.prompt not in row and not spec.prompts:
        raise record.missing(columns.prompt, row, place, "set source.columns.prompt or source.prompts")
    value = {name: row.get(column) for name, column in _names(spec).items()}
    if isinstance(facts := value.get("facts"), str):
        value["facts"] = record.parse(facts, place, "the facts are ")
    others = {name: item for name, item in row.items() if name not in ("prompt", "facts", *ANSWERS)}
    if named:  # whatever else the dataset has images in
        others = {name: item for name, item in others.items() if name not in references.IMAGES}
        others["images"] = row[columns.images]
    return {**others, **value}
