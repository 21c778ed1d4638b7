"""The picture of a scene, from glyphs of the DejaVu Sans font that ships inside matplotlib."""

from __future__ import annotations

import io
from functools import cache
from importlib.resources import as_file, files

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pipeline.scenes.vocabulary import COLOURS, GLYPHS
from pipeline.scenes.world import SIZE, Scene


@cache
def _mask(name: str, size: int) -> np.ndarray:
    """Coverage of the glyph, scaled to fill a ``size`` x ``size`` square, as float32 [size, size, 1] in 0..1."""
    with as_file(files("matplotlib") / "mpl-data/fonts/ttf/DejaVuSans.ttf") as path:
        font = ImageFont.truetype(str(path), 96)
    left, top, right, bottom = font.getbbox(GLYPHS[name])
    side = int(max(right - left, bottom - top))
    glyph = Image.new("L", (side, side))
    corner = ((side - (right - left)) / 2 - left, (side - (bottom - top)) / 2 - top)
    ImageDraw.Draw(glyph).text(corner, GLYPHS[name], font=font, fill=255)
    small = glyph.resize((size, size), Image.Resampling.BOX)
    return np.asarray(small, np.float32)[..., None] / 255


@cache
def _ink(name: str, colour: str, size: int) -> tuple[np.ndarray, np.ndarray]:
    mask = _mask(name, size)
    return 1 - mask, mask * np.asarray(COLOURS[colour], np.float32)


def pixels(scene: Scene) -> np.ndarray:
    """uint8 [96, 96, 3], RGB."""
    canvas = np.empty((SIZE, SIZE, 3), np.float32)
    canvas[:] = scene.background
    for thing in scene.objects:
        for _, x, y, size in thing.places:
            keep, ink = _ink(thing.name, thing.colour, size)
            patch = canvas[y : y + size, x : x + size]
            patch *= keep
            patch += ink
    return canvas.astype(np.uint8)


def png(scene: Scene) -> bytes:
    """The picture as an encoded PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels(scene)).save(buffer, "PNG")
    return buffer.getvalue()
