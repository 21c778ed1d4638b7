"""The images of a prompt for a browser: by its row, never by a path that somebody asks for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.base.images import image_files, pixels
from pipeline.publishing.page_images import kind, reduce_picture
from pipeline.running.store import Run


class Picture(NamedTuple):
    data: bytes
    media_type: str


class NoPicture(Exception):
    """Says why there is none."""


def picture(run: Run, shard: int, prompt_id: str, number: int, small: bool) -> Picture:
    """An image of a prompt as its final pixels (``pipeline.base.images.pixels``); ``small``: reduced if
    it is large. What lies on the web or in a bucket is not fetched.

    Raises:
        NoPicture: there is none, or it cannot be had.
    """
    table = run.read("source", shard)
    rows = table.select(["images"]).filter(pc.equal(table["id"], pa.scalar(prompt_id, pa.string()))).to_pylist()
    images = rows[0]["images"] or [] if rows else []
    if not 0 <= number < len(images):
        raise NoPicture("the prompt has no such image")
    if (why := why_missing(images[number])) is not None:
        raise NoPicture(why)
    try:
        data = pixels.final(image_files.load(images[number], pixels.MAX_BYTES))
        data = reduce_picture(data)[0] if small else data
    except OSError as error:
        raise NoPicture(f"the file cannot be read ({error.strerror or error})") from error
    except pixels.BadImage as error:
        raise NoPicture(str(error)) from error
    return Picture(data, f"image/{kind(data)}")


def why_missing(image: Mapping[str, Any]) -> str | None:
    """Why an image is not even looked for; None if it is."""
    if image_files.is_here(image):
        return None
    return f"not fetched: {image_files.public(image['path'])}" if image["path"] else "the row has no image"
