"""Files that may be compressed with gzip, bzip2 or xz, told by how they begin, as ``datasets`` opens them."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

#: Behind the suffix of what is compressed.
SUFFIXES = frozenset({".gz", ".bz2", ".xz"})
_OPENERS: dict[bytes, Callable[..., Any]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}
#: Zip, Zstandard, LZ4.
_OTHERS = (b"PK\3\4", b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18")
_CHUNK = 1 << 24


def suffix(path: str | Path) -> str:
    """What a file holds, by its name.

    >>> suffix("a.jsonl.gz"), suffix("a.JSON"), suffix("a.gz")
    ('.jsonl', '.json', '')
    """
    name = Path(path)
    return Path(name.stem).suffix.lower() if name.suffix.lower() in SUFFIXES else name.suffix.lower()


def open_plain(file: Path) -> IO[bytes]:
    """What is in it, without the compression.

    Raises:
        OSError: it cannot be opened. Reading a damaged one raises OSError, EOFError, ``zlib.error`` or ``LZMAError``.
    """
    begin = _begin(file)
    opener = next((opener for start, opener in _OPENERS.items() if begin.startswith(start)), None)
    return file.open("rb") if opener is None else opener(file, "rb")


def is_readable(file: Path) -> bool:
    """Whether ``open_plain`` gives what is in it, and not another kind of archive."""
    return not _begin(file).startswith(_OTHERS)


def plain_size(file: Path) -> int:
    """Bytes, without the compression; a compressed file is read for it."""
    if not _begin(file).startswith(tuple(_OPENERS)):
        return file.stat().st_size
    with open_plain(file) as opened:
        return sum(map(len, iter(lambda: opened.read(_CHUNK), b"")))


def _begin(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(8)
