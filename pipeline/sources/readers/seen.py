"""What an input says, images included: their sizes and times, for reading them all would take too long."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.base.images.image_files import is_url
from pipeline.sources.config import TableSource
from pipeline.sources.readers import files
from pipeline.sources.readers.roots import root_of


def stamp(path: str, spec: TableSource, columns: Callable[[str], Iterator[list[str]]]) -> str:
    """Of a file, and of the images on this machine that ``columns`` finds in it. Others are taken to stay the same."""
    root = files.local(root_of(spec.root, path, spec.allow_http).place)
    if root is None:
        return files.stamp(path)
    names = {name for chunk in columns(path) for name in chunk if name and not is_url(name)}
    return files.digest([files.stamp(path), *(_stat(root, name) for name in sorted(names))])


def paths(rows: Iterable[Sequence[Mapping[str, Any]]]) -> Iterator[list[str]]:
    """The paths of many rows' images, for ``stamp``."""
    for images in rows:
        yield [image["path"] for image in images if image["bytes"] is None]


def _stat(root: str, name: str) -> str:
    try:
        stat = os.stat(os.path.join(root, name))
    except (OSError, ValueError):
        return "missing"
    return f"{stat.st_size}:{stat.st_mtime_ns}"
