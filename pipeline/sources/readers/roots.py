"""Which files the rows of an input may name: those below one folder or URL, and nothing else."""

from __future__ import annotations

from pipeline.base.images.image_files import Refused, Root
from pipeline.sources.readers import files

__all__ = ["Refused", "Root", "root_of"]


def root_of(root: str | None, file: str, allow_http: bool) -> Root:
    """The root of the images that ``file`` names: as given, or the folder the file lies in."""
    return Root(files.folder(file) if root is None else root, allow_http)
