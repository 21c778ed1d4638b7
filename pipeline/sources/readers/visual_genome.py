"""Visual Genome: the phrases of region_descriptions.json and their boxes become ``facts.regions``."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from pipeline.base.errors import InputError
from pipeline.base.images.image_files import load, public
from pipeline.base.images.pixels import BadImage, size
from pipeline.sources.config import VisualGenomeSource
from pipeline.sources.readers import fields, files, record
from pipeline.sources.readers.boxes import fractions
from pipeline.sources.readers.elements import anything, array
from pipeline.sources.readers.protocol import Entry, user_turn
from pipeline.sources.readers.roots import Refused, Root, root_of

#: The two archives of the images unpack into these folders.
_FOLDERS = ("", "VG_100K/", "VG_100K_2/")
#: Where an image may lie, and its width and height in pixels.
_Known = tuple[list[str], tuple[float, float]]


def read(spec: VisualGenomeSource) -> Iterator[Entry]:
    root, name = root_of(spec.root, spec.path, spec.allow_http), files.base_name(spec.path)
    sizes = _image_data(spec.image_data) if spec.image_data else {}
    seen: set[int] = set()
    for number, item in anything(spec.path):
        yield from record.attempt(f"{name}#{number}", _entries, item, number, sizes, spec, name, root, seen)


def _entries(
    item: Any, number: int, sizes: Mapping[int, _Known], spec: VisualGenomeSource, name: str, root: Root, seen: set[int]
) -> Iterator[Entry]:
    try:
        image = fields.number(item, "id")
        if image in seen:
            raise ValueError(f"image {image} comes a second time")
        seen.add(image)
        places, shape = sizes.get(image, ([f"{folder}{image}.jpg" for folder in _FOLDERS], None))
        path = _existing_path(root, places)
        regions = _regions(item["regions"], shape or _measure(root, path, spec.max_image_bytes))
    except (KeyError, OverflowError, TypeError, ValueError) as error:
        what = f"lacks {error}" if isinstance(error, KeyError) else str(error)
        raise record.BadRow(f"{public(spec.path)}, item {number}: {what}", "give region_descriptions.json") from error
    for prompt in spec.prompts:
        pictures, source = [{"bytes": None, "path": path}], f"{name}:{image}"
        yield Entry(pictures, user_turn(prompt), {"regions": regions}, source, root, annotated=shape)


def stamp(spec: VisualGenomeSource) -> list[str]:
    return [files.stamp(path) for path in (spec.path, spec.image_data) if path]


def _image_data(path: str) -> dict[int, _Known]:
    images: dict[int, _Known] = {}
    for number, item in array(path):
        try:
            image = fields.number(item, "image_id" if "image_id" in item else "id")
            shape = fields.size(item, "width"), fields.size(item, "height")
            url = fields.text(item, "url") if item.get("url") else f"{image}.jpg"
            parts = urlsplit(url).path.strip("/").split("/")
            if image in images:
                raise ValueError(f"image {image} comes a second time")
            images[image] = (["/".join(parts[-2:]), parts[-1]], shape)
        except (KeyError, OverflowError, TypeError, ValueError) as error:
            raise InputError(f"{public(path)}, item {number}: {error}", "give image_data.json") from error
    return images


def _existing_path(root: Root, places: list[str]) -> str:
    """The first of ``places`` where there is a file; the first one at all if there is none."""
    for place in places:
        try:
            if files.exists(root.resolve(place)):
                return place
        except Refused:
            continue
    return places[0]


def _measure(root: Root, path: str, max_bytes: int) -> tuple[float, float] | None:
    """None for an image that cannot be read; its row will fail with the reason."""
    try:
        return size(load({"bytes": None, "path": root.resolve(path)}, max_bytes))
    except (OSError, BadImage, Refused):
        return None


def _regions(regions: list[dict[str, Any]], shape: tuple[float, float] | None) -> list[dict[str, Any]] | None:
    if shape is None:
        return None
    if min(shape) <= 0:
        raise ValueError(f"the image is {json.dumps(shape)} pixels large")
    kept = []
    for region in regions:
        box = fractions([region[key] for key in ("x", "y", "width", "height")], *shape)
        if region["phrase"] == "" or box is None:
            continue  # nothing is said, or nothing is shown
        kept.append({"phrase": fields.text(region, "phrase").strip(), "box": box})
    return kept
