"""A Parquet file with the columns of ``jsonl``; images are paths or ``{bytes, path}``, facts a struct or JSON."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from pipeline import references
from pipeline.config.source import TableSource
from pipeline.errors import InputError
from pipeline.sources import Entry, files, record, seen
from pipeline.sources.roots import Root, root_of


def read(spec: TableSource) -> Iterator[Entry]:
    for path in files.expand(spec.path):
        root, name = root_of(spec.root, path, spec.allow_http), files.base_name(path)
        for number, value in enumerate(_rows(path, spec), 1):
            place, source = record.Place(path, "row", number), f"{name}:{number}"
            yield from record.attempt(source, _entries, value, place, source, root, spec.prompts)


def _entries(
    value: dict[str, Any], place: record.Place, source: str, root: Root, prompts: Sequence[str]
) -> Iterator[Entry]:
    if isinstance(value.get("facts"), str):
        value = {**value, "facts": record.parse(value["facts"], place, "`facts` is ")}
    return record.entries(value, place, source, root, prompts)


def stamp(spec: TableSource) -> list[str]:
    return [seen.stamp(path, spec, _columns) for path in files.expand(spec.path)]


def _rows(path: str, spec: TableSource) -> Iterator[dict[str, Any]]:
    with _open(path) as parquet:
        present = parquet.schema_arrow.names
        if not set(references.IMAGES) & set(present):
            raise record.missing("images", present, path)
        if "prompt" not in present and not spec.prompts:
            raise record.missing("prompt", present, path, "or set source.prompts")
        columns = [field.name for field in parquet.schema_arrow if field.name in record.COLUMNS or _may_name(field)]
        # Row groups with images in them are large: few rows at a time.
        for batch in parquet.iter_batches(batch_size=256, columns=columns):
            yield from batch.to_pylist()


def _may_name(field: Any) -> bool:
    """Whether a column that nobody reads may hold images all the same, which a row without any would be refused for."""
    return any(part in field.name.lower() for part in ("image", "img", "pic", "photo", "file", "path"))


def _columns(path: str) -> Iterator[list[str]]:
    import pyarrow as pa

    with _open(path) as parquet:
        names = [name for name in references.IMAGES if name in parquet.schema_arrow.names]
        kinds = [parquet.schema_arrow.field(name).type for name in names]
        # Images in the file are stamped with it.
        plain = [name for name, kind in zip(names, kinds, strict=True) if _leaf(kind) == pa.string()]
        for batch in parquet.iter_batches(columns=plain) if plain else ():
            for column in batch.columns:
                flat = column if pa.types.is_string(column.type) else column.flatten()
                yield flat.unique().to_pylist()


def _leaf(kind: Any) -> Any:
    return getattr(kind, "value_type", kind)


@contextmanager
def _open(path: str) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet

    with files.reading(path) as file:
        try:
            yield pyarrow.parquet.ParquetFile(file)
        except pa.ArrowException as error:
            raise InputError(f"{path} is not a Parquet file ({error})", "check source.kind") from error
