"""Files of a dataset end after the same rows, in whatever tables these arrive."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.tables import IMAGE
from pipeline.publishing import dataset_folder

PIECES = st.lists(st.lists(st.sampled_from([None, b"", b"12345", b"1" * 20]), max_size=5), max_size=6)


@given(PIECES, st.integers(1, 7))
def test_batches_end_after_the_same_rows_however_they_arrive(pieces: list[list[bytes | None]], per_file: int) -> None:
    schema = pa.schema([("images", pa.list_(IMAGE)), ("text", pa.string())])

    def table(data: list[bytes | None]) -> pa.Table:
        rows = [{"images": [{"bytes": image, "path": "p"}], "text": image and "x" * len(image)} for image in data]
        return pa.Table.from_pylist(rows, schema=schema)

    def written(tables: list[pa.Table]) -> list[tuple[int, bytes]]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(dataset_folder, "BATCH_ROWS", 3)
            patch.setattr(dataset_folder, "_BATCH_BYTES", 21)
            return [
                (number, rows.to_batches()[0].serialize().to_pybytes())
                for number, rows in dataset_folder._batches(tables, schema, per_file)
            ]

    every = [row for piece in pieces for row in piece]
    batches = written([table(piece) for piece in pieces])
    assert batches == written([table(every)]) == written([table([row]) for row in every])
    read = [(number, pa.ipc.read_record_batch(pa.py_buffer(data), schema)) for number, data in batches]
    assert [row for _, batch in read for row in batch.to_pylist()] == table(every).to_pylist()
    for number in range(-(-len(every) // per_file)):
        of_file = [len(batch) for at, batch in read if at == number]
        assert sum(of_file) == min(per_file, len(every) - number * per_file) and max(of_file) <= 3
    for _, batch in read:  # only the last row of a batch may reach the limit
        sizes = [len(row["images"][0]["bytes"] or b"") for row in batch.to_pylist()]
        assert sum(sizes[:-1]) < 21
