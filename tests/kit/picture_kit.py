"""Encoded images whose reader has something to decide, and what is to be seen in them."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

#: What ``Image.transpose`` does to a picture so that a reader who applies the EXIF orientation sees the original.
STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def noise(width: int = 24, height: int = 16, seed: int = 0, channels: int = 3) -> np.ndarray[Any, Any]:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def file(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def turned(orientation: int, kind: str = "JPEG", upright: Image.Image | None = None, **options: Any) -> bytes:
    """The file of a camera that was held in another way: stored as the sensor saw it, with EXIF saying how to turn."""
    image = upright if upright is not None else Image.fromarray(noise())
    turn = STORED[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    return file(image if turn is None else image.transpose(turn), kind, exif=exif, **options)


def pixels(image: Image.Image) -> np.ndarray[Any, Any]:
    return np.asarray(image)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def raw_png(width: int, height: int, depth: int, colour: int, rows: bytes, *chunks: bytes, late: bytes = b"") -> bytes:
    """A PNG from its bare parts; ``rows`` are packed samples without filter bytes, ``late`` stands behind them."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    size = len(rows) // height
    lines = b"".join(b"\0" + rows[at : at + size] for at in range(0, len(rows), size))
    parts = (chunk(b"IHDR", header), *chunks, chunk(b"IDAT", zlib.compress(lines)), late, chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
