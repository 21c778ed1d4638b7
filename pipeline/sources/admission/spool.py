"""Rows too many for memory, set aside on disk and given back by ranges of ids.

Rows wait in memory until they fill ``memory``; then they are sorted into 256 buckets by the first two hexadecimal
digits of their id and written as one Arrow file of 256 record batches. A bucket is one batch of each file. Rows that
never fill the memory never reach the disk and are one bucket. Prompts about one image are in one bucket, however
many they are. Embedded images lie in a file of their own, so that
buckets stay small.
"""

from __future__ import annotations

import contextlib
import shutil
from collections import OrderedDict
from itertools import pairwise
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa

from pipeline.base.files import disk_error

BUCKETS = 256
MEMORY = 16 << 20


class Spool:
    """State: the rows. A context manager; leaving it removes the folder."""

    def __init__(self, folder: Path, memory: int = MEMORY) -> None:
        self._folder, self._memory = folder, memory
        self._waiting: list[pa.RecordBatch] = []
        self._bytes = 0
        self._files: list[Path] = []
        self.rows = 0
        self.blobs = Blobs(folder / "blobs")

    def __enter__(self) -> Spool:
        shutil.rmtree(self._folder, ignore_errors=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.blobs.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def add(self, batch: pa.RecordBatch) -> None:
        self._waiting.append(batch)
        self.rows += batch.num_rows
        self._bytes += batch.nbytes
        if self._bytes >= self._memory:
            self._spill()

    def finish(self) -> None:
        """No row comes any more."""
        if self._files and self._waiting:
            self._spill()
        self.blobs.finish()

    @property
    def buckets(self) -> int:
        return BUCKETS if self._files else int(bool(self.rows))

    def bucket(self, number: int) -> pa.Table:
        """The rows of one range of ids, in the order in which they came. Ids of a later bucket are larger."""
        if not self._files:
            return pa.Table.from_batches(self._waiting)
        batches = []
        for path in self._files:
            with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
                batches.append(reader.get_batch(number))
        return pa.Table.from_batches(batches)

    def _spill(self) -> None:
        table = pa.Table.from_batches(self._waiting)
        self._waiting, self._bytes = [], 0
        digits = np.array([row_id[:2] for row_id in table["id"].to_pylist()], "S2")
        order = np.argsort(digits, kind="stable")
        names = np.array([f"{number:02x}" for number in range(BUCKETS)], "S2")
        starts = [*np.searchsorted(digits[order], names).tolist(), table.num_rows]
        (batch,) = table.take(pa.array(order)).combine_chunks().to_batches()
        path = self._folder / f"rows-{len(self._files):05d}.arrow"
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
                for start, end in pairwise(starts):
                    writer.write_batch(batch.slice(start, end - start))
        except OSError as error:
            raise disk_error(path, error) from error
        self._files.append(path)


class Blobs:
    """Bytes of images that are in no file of their own. ``put`` them, ``finish``, ``get`` them back."""

    def __init__(self, path: Path, kept: int = 4096) -> None:
        self._path, self._kept = path, kept
        self._file: IO[bytes] | None = None
        self._end = 0
        self._last: OrderedDict[bytes, tuple[int, int]] = OrderedDict()

    def put(self, key: bytes, data: bytes) -> tuple[int, int]:
        """Offset and size. Data of a key that came shortly before is not written again."""
        if key in self._last:
            return self._last[key]
        try:
            if self._file is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._path.open("wb")
            self._file.write(data)
        except OSError as error:
            raise disk_error(self._path, error) from error
        place = self._last[key] = (self._end, len(data))
        self._end += len(data)
        if len(self._last) > self._kept:
            self._last.popitem(last=False)
        return place

    def finish(self) -> None:
        if self._file is None:
            return
        try:
            self._file.close()
        except OSError as error:
            raise disk_error(self._path, error) from error
        self._file = self._path.open("rb")

    def get(self, offset: int, size: int) -> bytes:
        assert self._file is not None
        self._file.seek(offset)
        return self._file.read(size)

    def close(self) -> None:
        if self._file is not None:
            # Closing writes what is buffered; on a full disk that fails again, and the first error is the one to say.
            with contextlib.suppress(OSError):
                self._file.close()
            self._file = None
