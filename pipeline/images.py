"""Images: the bytes behind them and their pixels. All of the pipeline and of training goes through here.

The rules stand in ``reward.image_files`` and ``reward.pixels``, for scorers see the same pictures and import nothing
from here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from reward.image_files import is_url, load, local, locator, open_regular, public, read_text, scheme
from reward.pixels import FORMATS, MAX_BYTES, MAX_PIXELS, BadImage, check, decode, encode, final, is_final, look, size

if TYPE_CHECKING:
    from PIL import Image

__all__ = [
    "FORMATS",
    "MAX_BYTES",
    "MAX_PIXELS",
    "BadImage",
    "check",
    "decode",
    "encode",
    "final",
    "fit",
    "is_final",
    "is_url",
    "load",
    "local",
    "locator",
    "look",
    "open_regular",
    "public",
    "read_text",
    "scheme",
    "size",
]


def fit(image: Image.Image, max_pixels: int | None) -> Image.Image:
    """The image, scaled down where it has more than ``max_pixels``; its shape stays."""
    if max_pixels is None or image.width * image.height <= max_pixels:
        return image
    scale = (max_pixels / (image.width * image.height)) ** 0.5
    return image.resize((max(1, int(image.width * scale)), max(1, int(image.height * scale))))
