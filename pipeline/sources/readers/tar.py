"""Members of an uncompressed tar, and whether the archive is whole.

Python's ``tarfile`` takes a damaged header for the end of the archive, and so loses every member behind it. What ends a
tar are two empty blocks and nothing but zeros behind them, as GNU and BSD tar, Python and webdataset write it; anything
else is an error with its position. So are tars that were joined by ``cat``: where one ends nothing tells it from a
header that was lost. ``tar --concatenate`` leaves no end between the two.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import IO, Any

from pipeline.base.errors import InputError
from pipeline.base.images.image_files import public

_BLOCK = 512
#: Zeros behind the end: GNU's largest record. Room that a download had not filled is longer.
_MOST_ZEROS = 1 << 20
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
_WHOLE = "download or write it again"


def members(path: str, file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """All members of ``file`` in their order; ``path`` is what errors call it. Nothing is read twice.

    Raises:
        InputError: it is compressed, cut off or damaged; the message names the byte.
    """
    at = 0
    try:
        archive: Any
        with tarfile.open(fileobj=file, mode="r:") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # it would keep them all
                if archive.offset <= at:  # a size below zero leads back
                    raise tarfile.ReadError("a member of a negative size")
                at = archive.offset
                yield member
            _check_end(path, file, archive.offset)
    except InputError:
        raise
    # Numbers and names of a damaged header are not always checked: ValueError, UnicodeError, OverflowError and others.
    except (tarfile.TarError, ValueError, LookupError, ArithmeticError, RecursionError) as error:
        file.seek(0)
        if not at and file.read(8).startswith(_COMPRESSED):
            raise InputError(
                f"{public(path)} is compressed",
                "give uncompressed tars: an image in a compressed one cannot be found again without reading it all",
            ) from error
        raise InputError(
            f"{public(path)} cannot be read as a tar from byte {at} on ({error})", f"{_WHOLE}; tars are uncompressed"
        ) from error


def _check_end(path: str, file: IO[bytes], at: int) -> None:
    """``at`` is where ``tarfile`` saw the end."""
    file.seek(at)
    end = file.read(2 * _BLOCK)
    if len(end) < 2 * _BLOCK:
        raise InputError(
            f"{public(path)}: the tar is cut off at byte {at + len(end)}, without the two empty blocks that end one",
            _WHOLE,
        )
    if end.strip(b"\0"):
        raise InputError(f"{public(path)}: the tar is damaged: no header of a member at byte {at}", _WHOLE)
    place = at + len(end)
    while data := file.read(1 << 16):
        if rest := data.lstrip(b"\0"):
            place += len(data) - len(rest)
            raise InputError(
                f"{public(path)}: the tar ends at byte {at}, and there is more at byte {place}: a header was lost, or "
                "another tar was put behind it",
                f"{_WHOLE}, or join tars with `tar --concatenate`",
            )
        place += len(data)
        if place - at > _MOST_ZEROS:
            raise InputError(
                f"{public(path)}: more than {_MOST_ZEROS} bytes behind byte {at} are zero, as in a download that was "
                "not finished",
                _WHOLE,
            )
