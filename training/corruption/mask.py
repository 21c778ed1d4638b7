"""Pictures with parts, or all, blackened."""

from __future__ import annotations

import numpy as np
from PIL import Image

from training.corruption.crop import Box

#: Cells along each side of the block mask's grid.
GRID = 8


def black(image: Image.Image) -> Image.Image:
    """Nothing left."""
    return Image.new("RGB", image.size)


def blacken(image: Image.Image, box: Box) -> Image.Image:
    """A copy with a rectangle (left, top, right, bottom) blackened, given in shares of width and height, 0..1.

    Edges are rounded to whole pixels; at least one pixel is blackened.
    """
    left, right = _edges(box[0], box[2], image.width)
    top, bottom = _edges(box[1], box[3], image.height)
    masked = image.copy()
    masked.paste((0, 0, 0), (left, top, right, bottom))
    return masked


def block_mask(image: Image.Image, share: float, rng: np.random.Generator) -> Image.Image:
    """Blacken ``share`` of the cells of an 8 x 8 grid, chosen at random.

    The number of cells is rounded; at least one goes, and one stays unless ``share`` is 1 or more. A side shorter than
    8 pixels has a cell per pixel.
    """
    rows, columns = min(GRID, image.height), min(GRID, image.width)
    cells = rows * columns
    gone = max(1, min(round(share * cells), cells if share >= 1 else cells - 1))
    pixels = np.array(image)
    for cell in rng.permutation(cells)[:gone]:
        row, column = divmod(int(cell), columns)
        top, bottom = (image.height * edge // rows for edge in (row, row + 1))
        left, right = (image.width * edge // columns for edge in (column, column + 1))
        pixels[top:bottom, left:right] = 0
    return Image.fromarray(pixels)


def _edges(low: float, high: float, size: int) -> tuple[int, int]:
    start = min(round(low * size), size - 1)
    return start, max(round(high * size), start + 1)
