"""What makes a dataset the same one next time: its rows and the images that they name by their paths."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import datasets

from training import formats
from training.errors import DataError
from training.formats import dataset_files
from training.formats.schema import Schema

_IMAGES = ("images", "rejected_images", "similar_images")
_ROWS = 256


def identity(
    path: str,
    name: str | Schema | None = None,
    split: str | None = None,
    image_root: str | None = None,
    rejected: bool = True,
    allowed_roots: Sequence[str] = (),
    allow_http: bool = False,
) -> str:
    """A digest of the rows of a local dataset and of the images that they name, wherever both lie; the name of any
    other dataset, with its revision. The arguments are those of ``formats.open``.

    A dataset that cannot be read has the digest of its files: whoever reads it says what is wrong with it.
    """
    of_files = dataset_files.identity(path)
    if not Path(path).exists():
        return of_files
    try:
        rows = formats.open(path, name, split, image_root, rejected, allowed_roots, allow_http)
    except DataError:
        return of_files
    digest, seen = hashlib.sha256(of_files.encode()), dict[str, str]()
    for place in _places(rows):
        if place not in seen:
            seen[place] = _of_file(place)
        digest.update(seen[place].encode())
    return f"sha256:{digest.hexdigest()}" if seen else of_files


def _places(rows: datasets.Dataset) -> Iterator[str]:
    """Every place of an image that is no part of its row, in order."""
    for column in (column for column in _IMAGES if column in rows.column_names):
        only = rows.select_columns([column])
        for start in range(0, len(only), _ROWS):
            for images in only[start : start + _ROWS][column]:
                yield from (image["path"] for image in images or () if image["bytes"] is None)


def _of_file(place: str) -> str:
    """The content of a file; a URL, and a file that is gone, by its name."""
    try:
        with Path(place).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return place
