"""A Parquet file with the columns of ``jsonl``; images are paths or ``{bytes, path}``, facts a struct or JSON."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.base.errors import InputError
from pipeline.base.images import references
from pipeline.sources.config import TableSource
from pipeline.sources.readers import files, labels, record, seen
from pipeline.sources.readers.answer import COLUMNS as ANSWERS
from pipeline.sources.readers.protocol import Entry
from pipeline.sources.readers.roots import Root, root_of


def read(spec: TableSource) -> Iterator[Entry]:
    for path in files.expand(spec.path):
        root, name = root_of(spec.root, path, spec.allow_http), files.base_name(path)
        with _open(path) as parquet:
            features = labels.of_arrow(parquet.schema_arrow.metadata)
        for number, value in enumerate(_rows(path, spec), 1):
            place, source = record.Place(path, "row", number), f"{name}:{number}"
            yield from record.attempt(source, _entries, value, features, place, source, root, spec.prompts)


def _entries(
    value: dict[str, Any] | record.BadRow,
    features: Mapping[str, Any],
    place: record.Place,
    source: str,
    root: Root,
    prompts: Sequence[str],
) -> Iterator[Entry]:
    if isinstance(value, record.BadRow):
        raise record.BadRow(f"{place}: {value.message}", value.remedy)
    value = record.name_labels(value, {name: name for name in ("prompt", "facts", *ANSWERS)}, features, place)
    if isinstance(value.get("facts"), str):
        value = {**value, "facts": record.parse(value["facts"], place, "`facts` is ")}
    return record.entries(value, place, source, root, prompts)


def stamp(spec: TableSource) -> list[str]:
    return [seen.stamp(path, spec, _columns) for path in files.expand(spec.path)]


def _rows(path: str, spec: TableSource) -> Iterator[dict[str, Any] | record.BadRow]:
    with _open(path) as parquet:
        present = parquet.schema_arrow.names
        if not set(references.IMAGES) & set(present):
            raise record.missing("images", present, path)
        if "prompt" not in present and not spec.prompts:
            raise record.missing("prompt", present, path, "or set source.prompts")
        columns = [field.name for field in parquet.schema_arrow if field.name in record.COLUMNS or _may_name(field)]
        # Row groups with images in them are large: few rows at a time.
        for batch in parquet.iter_batches(batch_size=256, columns=columns):
            yield from record.values(batch)


def _may_name(field: Any) -> bool:
    """Whether a column that nobody reads may hold images all the same, which a row without any would be refused for."""
    return any(part in field.name.lower() for part in ("image", "img", "pic", "photo", "file", "path"))


def _columns(path: str) -> Iterator[list[str]]:
    import pyarrow as pa

    with _open(path) as parquet:
        names = [name for name in references.IMAGES if name in parquet.schema_arrow.names]
        kinds = [parquet.schema_arrow.field(name).type for name in names]
        # Images in the file are stamped with it.
        plain = [name for name, kind in zip(names, kinds, strict=True) if _is_text(_leaf(kind))]
        for batch in parquet.iter_batches(columns=plain) if plain else ():
            for column in batch.columns:
                with contextlib.suppress(ValueError):  # no text: the row will fail, and say why
                    yield pa.compute.unique(_texts(column)).to_pylist()


def _texts(column: Any) -> Any:
    """The texts of a column of them, or of lists of them, however Arrow holds them."""
    import pyarrow as pa

    while not _is_text(column.type):
        column = column.dictionary_decode() if pa.types.is_dictionary(column.type) else column.flatten()
    return column


def _leaf(kind: Any) -> Any:
    """The type of the values of a list, or that a dictionary stands for."""
    while (inner := getattr(kind, "value_type", None)) is not None:
        kind = inner
    return kind


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    return kind in (pa.string(), pa.large_string(), pa.string_view())


@contextlib.contextmanager
def _open(path: str) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet

    with files.reading(path) as file:
        try:
            opened = pyarrow.parquet.ParquetFile(file, page_checksum_verification=True)
            names = opened.schema_arrow.names
            if twice := sorted({name for name in names if names.count(name) > 1}):
                raise InputError(f"{path}: column {twice[0]!r} comes more than once", "rename one of them")
            yield opened
        except pa.ArrowException as error:
            raise InputError(f"{path} is not a Parquet file ({error})", "check source.kind") from error
