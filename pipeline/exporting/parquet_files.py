"""Parquet with the images inside, as ``datasets`` opens it: ``data/train-00000.parquet`` and so on."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from pipeline.exporting.published_pairs import PublishedPair

if TYPE_CHECKING:
    import datasets

#: Rows of a row group; one with images ends sooner, with the row that reaches so many bytes of them.
GROUP_ROWS, GROUP_BYTES = 100, 32 << 20
#: Bytes of images in a file; it ends with the row group that reaches them.
FILE_BYTES = 500 << 20


def write(
    folder: Path,
    features: datasets.Features,
    pairs: Iterable[PublishedPair],
    row: Callable[[PublishedPair, list[bytes]], Mapping[str, Any]],
) -> int:
    """Write a ``row`` for each of ``pairs``, given its image files; their number."""
    import pyarrow.parquet as pq

    schema = features.arrow_schema
    (folder / "data").mkdir()
    images, number, in_file, in_group = 0, 0, 0, 0
    group: list[Mapping[str, Any]] = []
    with contextlib.ExitStack() as stack:

        def open_file() -> Any:
            return stack.enter_context(pq.ParquetWriter(folder / "data" / f"train-{number:05d}.parquet", schema))

        writer = open_file()
        for pair in pairs:
            files = list(pair.files())
            group.append(row(pair, files))
            images += len(files)
            in_group += sum(map(len, files))
            if len(group) < GROUP_ROWS and in_group < GROUP_BYTES:
                continue
            if in_file >= FILE_BYTES:
                stack.close()
                number, in_file = number + 1, 0
                writer = open_file()
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
            group, in_file, in_group = [], in_file + in_group, 0
        if group:
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
    return images
