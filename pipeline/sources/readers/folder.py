"""A folder of images, each with every prompt of the recipe."""

from __future__ import annotations

from collections.abc import Iterator

from pipeline.sources.config import FolderSource
from pipeline.sources.readers import files
from pipeline.sources.readers.protocol import Entry, user_turn
from pipeline.sources.readers.roots import Root

SUFFIXES = (".png", ".jpg", ".jpeg", ".jfif", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm")


def read(spec: FolderSource) -> Iterator[Entry]:
    root = Root(spec.root or spec.path, spec.allow_http)
    place = files.absolute(spec.path)
    # A link to a folder is an image that cannot be read: what lies behind it is not left out without a word.
    for name, _ in files.walk(spec.path, SUFFIXES, links=True):
        # Relative to the folder and not to the root, of which it may be a part.
        image = {"bytes": None, "path": f"{place}/{name}"}
        for prompt in spec.prompts:
            yield Entry([image], user_turn(prompt), None, name, root)


def stamp(spec: FolderSource) -> str:
    return files.digest(f"{name}:{told}" for name, told in files.walk(spec.path, SUFFIXES, links=True))
