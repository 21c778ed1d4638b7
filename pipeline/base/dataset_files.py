"""Whether the files of a local dataset can be opened, and are whole, before the ``datasets`` library opens them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

from pipeline.base import compressed
from pipeline.base.images.image_files import check_regular, open_regular

#: How Arrow's two formats end. A stream that was cut off between two batches is read as a shorter one.
_ENDS = (b"\xff\xff\xff\xff\0\0\0\0", b"ARROW1")

#: Which of the library's readers opens a file, by its name; JSON may be compressed.
READERS = {".json": "json", ".jsonl": "json", ".parquet": "parquet"}
#: What names of data files end in; on a hub a dataset is called by no such name.
_FILES = frozenset({*READERS, *compressed.SUFFIXES, ".arrow", ".csv", ".yaml", ".txt"})


def reader(path: str | Path) -> str | None:
    """A value of ``READERS``; None for a file of another kind.

    >>> reader("a.jsonl.gz"), reader("a.parquet"), reader("a.parquet.gz")
    ('json', 'parquet', None)
    """
    kind = READERS.get(compressed.suffix(path))
    return kind if kind == "json" or Path(path).suffix.lower() not in compressed.SUFFIXES else None


def is_missing(path: str) -> bool:
    """Whether a name can only be that of a file or folder here, and there is none. A hub need not be asked for it.

    >>> is_missing("pairs.json"), is_missing("./pairs"), is_missing("owner/name"), is_missing("hf://datasets/a/b.json")
    (True, True, False, False)
    """
    local = path.startswith((".", "/", "~")) or path.count("/") > 1 or Path(path).suffix.lower() in _FILES
    return local and "://" not in path and not Path(path).exists()


def check(path: str | Path) -> None:
    """A file, or a folder with all that lies below it.

    Raises:
        OSError: there is a FIFO, socket or device, which would be waited for; ``strerror`` and ``filename`` say which.
        ValueError: an Arrow file of ``save_to_disk`` is cut off or missing.
    """
    place = Path(path)
    if not place.is_dir():
        check_regular(place, place.stat())
        return
    for file in _below(place):
        if file.name == "state.json":
            for name in _data_files(file):
                _check_whole(file.parent / name)


def _below(folder: Path) -> Iterator[Path]:
    """All files; each is a regular one."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if entry.is_dir():
                if not entry.is_symlink():
                    yield from _below(Path(entry.path))
            elif entry.is_file():
                yield Path(entry.path)
            elif os.path.exists(entry.path):  # a dangling link is for whoever opens it
                check_regular(entry.path, entry.stat())


def _data_files(state: Path) -> list[str]:
    try:
        with open_regular(state) as file:
            return [str(item["filename"]) for item in json.loads(file.read())["_data_files"]]
    except (ValueError, KeyError, TypeError):  # no folder of save_to_disk, or one that the library will refuse
        return []


def _check_whole(path: Path) -> None:
    try:
        with open_regular(path) as file:
            size = os.fstat(file.fileno()).st_size
            file.seek(max(0, size - 8))
            end = file.read()
    except FileNotFoundError as error:
        raise ValueError(f"{path} is missing; copy it again") from error
    if not end.endswith(_ENDS):
        raise ValueError(f"{path} is cut off at byte {size}: what ends an Arrow file is missing; copy it again")
