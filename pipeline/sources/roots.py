"""Which files the rows of an input may name: those below one folder or URL, and nothing else."""

from __future__ import annotations

import os
import posixpath
from typing import NamedTuple

from pipeline.images import is_url, public, scheme
from pipeline.sources import files


class Refused(Exception):
    """A path that is not followed. ``kind`` is the row's ``error_type``."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(kind, reason)
        self.kind = kind
        self.reason = reason


class Root(NamedTuple):
    """The folder or URL that image paths are relative to and may not leave."""

    place: str
    allow_http: bool = False

    def resolve(self, path: str) -> str:
        """The absolute path or URL of an image.

        >>> Root("s3://bucket/data").resolve("a/../b.png")
        's3://bucket/data/b.png'

        Raises:
            Refused: it leads out of the root (also by a symbolic link), or to the web where that is not allowed.
        """
        http = scheme(path) in ("http", "https")
        if (http or scheme(self.place) in ("http", "https")) and not self.allow_http:
            raise Refused("http_not_allowed", f"{public(path)}: images from the web need source.allow_http=true")
        if http:
            return path
        base = files.local(self.place)
        return self._on_disk(base, path) if base is not None else self._elsewhere(path)

    def _on_disk(self, base: str, path: str) -> str:
        inner = files.local(path)
        if inner is None or "\0" in inner:
            raise self._outside(path)
        base = os.path.abspath(base)
        # First without `..`, then through the links: what is checked must be what is opened.
        full = os.path.normpath(os.path.join(base, inner))
        real = os.path.realpath(base)
        if os.path.commonpath([real, os.path.realpath(full)]) != real:
            raise self._outside(path)
        return full

    def _elsewhere(self, path: str) -> str:
        base = self.place.rstrip("/")
        if is_url(path):
            if "::" in path or not path.startswith(f"{base}/"):
                raise self._outside(path)
            path = path[len(base) + 1 :]
        inner = posixpath.normpath(path)
        if inner.startswith(("/", "../")) or inner in ("..", "."):
            raise self._outside(path)
        return f"{base}/{inner}"

    def _outside(self, path: str) -> Refused:
        return Refused(
            "path_outside_root", f"{public(path)} is not below {public(self.place)}; set source.root if it is meant"
        )


def root_of(root: str | None, file: str, allow_http: bool) -> Root:
    """The root of the images that ``file`` names: as given, or the folder the file lies in."""
    return Root(files.folder(file) if root is None else root, allow_http)
