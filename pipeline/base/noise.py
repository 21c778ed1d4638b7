"""Pictures under noise.

A model shrinks a large picture, and that averages pixel-wise noise away: of noise on a picture 12 times as large as
what the model sees, a twelfth would be left. So noise is drawn on a grid of at most ``GRAIN`` cells along the longer
side, and in a larger picture all pixels of a cell share a value. The noise of a pixel is normal with the stated
deviation either way.
"""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

#: Cells of noise along the longer side, at most; the input side of CLIP ViT-L/14-336, which LLaVA-1.5 sees through.
GRAIN = 336

#: Noise steps of DDPM, and its variances at the first and the last.
STEPS = 1000
BETAS = (1e-4, 0.02)


def gaussian(image: Image.Image, strength: float, rng: np.random.Generator) -> Image.Image:
    """x + strength * noise on pixels in 0..1, then clipped; ``strength`` is the noise's standard deviation."""
    pixels = np.asarray(image, np.float32) / 255
    return _picture(pixels + np.float32(strength) * _normal(pixels.shape, rng))


def signal(step: int) -> float:
    """The share of the picture's variance that is left after ``step`` (1 to 1000) noise steps, alpha-bar in DDPM.

    alpha-bar_t = prod_{s <= t} (1 - beta_s), beta rising linearly from 1e-4 to 0.02 (Ho, Jain, Abbeel 2020,
    arXiv 2006.11239, section 4).

    >>> round(signal(1), 4), round(signal(500), 4), round(signal(1000), 6)
    (0.9999, 0.0786, 4e-05)
    """
    return float(np.prod(1 - np.linspace(*BETAS, STEPS)[:step]))


def diffusion(image: Image.Image, step: int, rng: np.random.Generator) -> Image.Image:
    """x_t = sqrt(alpha-bar_t) x_0 + sqrt(1 - alpha-bar_t) noise on pixels in -1..1, then clipped.

    The forward process of DDPM in closed form (arXiv 2006.11239, equation 4).
    """
    pixels = np.asarray(image, np.float32) / 127.5 - 1
    kept = signal(step)
    noised = np.float32(math.sqrt(kept)) * pixels + np.float32(math.sqrt(1 - kept)) * _normal(pixels.shape, rng)
    return _picture((noised + 1) / 2)


def _normal(shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """float32 [height, width, channels], standard normal, in square cells where the picture is larger than the grid."""
    height, width, channels = shape
    cell = max(1.0, max(height, width) / GRAIN)
    grid = rng.standard_normal((math.ceil(height / cell), math.ceil(width / cell), channels), np.float32)
    rows, columns = ((np.arange(side) / cell).astype(np.intp) for side in (height, width))
    return grid[rows[:, None], columns[None, :]]


def _picture(pixels: np.ndarray) -> Image.Image:
    return Image.fromarray((np.clip(pixels, 0, 1) * 255).round().astype(np.uint8))
