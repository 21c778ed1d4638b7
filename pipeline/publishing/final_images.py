"""Images as they are published: every reader sees in them what the models saw
(``pipeline.base.images.pixels.final``)."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.base import columns
from pipeline.base.errors import InputError
from pipeline.base.images import image_files, pixels
from pipeline.base.local_paths import base_name
from pipeline.base.tables import IMAGE

#: Pillow decodes and compresses outside Python's lock; each may hold a large image.
_THREADS = min(4, os.cpu_count() or 1)
_KEPT = 1 << 16
#: Bytes of images that are in memory at a time, in the mean; and what an image is taken for whose size nobody knows.
_HELD, _UNKNOWN = 64 << 20, 4 << 20


class FinalImages:
    """``embed``: the files that images are in are copied. Otherwise their paths stay, but for what a reader could see
    in another way, or not open at all, as the member of a tar.

    State: the last files that stay, so that each is read once; how many images of the columns did, ``outside``.
    """

    def __init__(self, embed: bool) -> None:
        self._embed = embed
        self._stay: OrderedDict[str, None] = OrderedDict()
        self.outside = {"local_images": 0, "remote_images": 0}

    def copies(self, pictures: Any) -> bool:
        """Whether bytes of any of the images will be published; if so, few rows are to be looked at at a time."""
        paths, data = (columns.items(pictures, name) for name in ("path", "bytes"))
        if self._embed or data.null_count < len(data):
            return True
        new = [path for path in dict.fromkeys(paths.to_pylist()) if path not in self._stay]
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="publish") as threads:
            stay = [path for path, stays in zip(new, threads.map(self._stays, new), strict=True) if stays]
        self._keep(stay)
        return len(stay) < len(new)

    def step(self, pictures: Any, most: int) -> int:
        """How many of these rows to look at at a time: ``most``, or as many as have ``_HELD`` bytes of images in the
        mean, where bytes of images will be published."""
        if not self.copies(pictures):
            return most
        data = columns.items(pictures, "bytes")
        inside = columns.ints(pc.binary_length(data), 0).sum()
        files = columns.items(pictures, "path").filter(data.is_null()).drop_null().value_counts().to_pylist()
        total = int(inside) + sum(entry["counts"] * _size(entry["values"]) for entry in files)
        return max(1, min(most, _HELD * len(pictures) // max(total, 1)))

    def column(self, ids: Any, pictures: Any, ok: columns.Bools | None = None) -> Any:
        """The images of the rows that are called ``ids``. Those of rows that are not ``ok`` are not opened.

        Raises:
            InputError: a file that is to be copied is gone; the message names the row.
        """
        sizes = columns.counts(pictures)
        keys = list(zip(*(columns.items(pictures, name).to_pylist() for name in ("path", "bytes")), strict=True))
        wanted: dict[tuple[str, bytes | None], str] = {}
        for key, row in zip(keys, columns.rows(sizes).tolist(), strict=True):
            if (ok is None or ok[row]) and not (key[1] is None and key[0] in self._stay):
                wanted.setdefault(key, ids[row].as_py())
        with ThreadPoolExecutor(_THREADS, thread_name_prefix="publish") as threads:
            shown = dict(zip(wanted, threads.map(self._shown, wanted, wanted.values()), strict=True))
        self._keep(path for path, had in wanted if had is None and shown[path, had] is None)
        told = pa.array([self._public(path, had, shown.get((path, had))) for path, had in keys], pa.string())
        data = pa.array([shown.get(key, key[1]) for key in keys], pa.binary())
        for place in told.filter(data.is_null()).to_pylist():
            self.outside["remote_images" if image_files.local(place) is None else "local_images"] += 1
        return columns.lists(sizes, pa.StructArray.from_arrays([data, told], fields=list(IMAGE)))

    def _keep(self, paths: Iterable[str]) -> None:
        self._stay.update(dict.fromkeys(paths))
        while len(self._stay) > _KEPT:
            self._stay.popitem(last=False)

    def _stays(self, path: str) -> bool:
        if path.startswith("tar://"):
            return False
        try:
            return pixels.is_final(image_files.load({"bytes": None, "path": path}))
        except (OSError, pixels.BadImage):  # it is gone, and its path is all there is
            return True

    def _shown(self, key: tuple[str, bytes | None], row_id: str) -> bytes | None:
        """The bytes to publish; None for a file that stays where it is."""
        path, data = key
        copied = self._embed or (data is None and path.startswith("tar://"))
        if data is None and not copied and self._stays(path):
            return None
        try:
            return pixels.final(image_files.load({"bytes": data, "path": path}))
        except (OSError, pixels.BadImage) as error:
            if data is not None:
                return data
            reason = getattr(error, "strerror", None) or error
            raise InputError(
                f"id {row_id!r}: the image {image_files.public(path)} cannot be read any more ({reason})",
                "put it back, or set publish.images=reference" if self._embed else "put it back",
            ) from error

    def _public(self, path: str, had: bytes | None, shown: bytes | None) -> str:
        """The path beside the bytes, if there are any; without the folder of this machine, or what may be secret."""
        if had is not None:
            return path and base_name(path)
        if shown is not None:
            return _file_name(path)
        return base_name(image_files.public(path)) if self._embed else image_files.public(path)


def _file_name(path: str) -> str:
    """What an image was called, without the folder of this machine.

    >>> _file_name("/data/a.png"), _file_name("tar:///data/a.tar#offset=512&size=90&name=b%20c.png")
    ('a.png', 'b c.png')
    """
    name = unquote(path.rpartition("&name=")[2]) if path.startswith("tar://") else image_files.public(path)
    return name.rpartition("/")[2]


def _size(path: str) -> int:
    """The bytes of a file; ``_UNKNOWN`` for one that is not on a disk here.

    >>> _size("tar:///data/a.tar#offset=512&size=90&name=b.png"), _size("s3://bucket/a.png") == _UNKNOWN
    (90, True)
    """
    if member := re.search(r"&size=(\d+)", path):
        return int(member[1])
    here = image_files.local(path)
    try:
        return os.path.getsize(here) if here is not None else _UNKNOWN
    except OSError:  # it is gone, which is said where it is read
        return _UNKNOWN
