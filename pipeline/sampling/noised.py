"""Pictures under noise, so that a model's own answer gets worse (SeVa, Zhu et al. 2024, arXiv 2404.10501).

A model shrinks a large picture, and that averages pixel-wise noise away. So noise is drawn on a grid of at most
``GRAIN`` cells along the longer side, and in a larger picture all pixels of a cell share a value. The noise of a pixel
is normal with the stated deviation either way.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from pipeline.base.images import pixels
from pipeline.sampling.config import DiffusionNoise, Noise

if TYPE_CHECKING:
    import numpy as np
    from PIL import Image

#: Cells of noise along the longer side, at most: the pixels that CLIP ViT-L/14-336 sees of a picture.
GRAIN = 336
#: DDPM's number of noise steps, and its variances at the first and the last (arXiv 2006.11239, section 4).
STEPS = 1000
BETAS = (1e-4, 0.02)


def noised(data: bytes, noise: Noise, seed: int, max_pixels: int | None = None) -> bytes:
    """The picture in the encoded file ``data`` under noise, as a PNG file; the same for the same seed.

    It is first scaled down to ``max_pixels``: noise on what is then averaged away would be less than was asked for.

    Raises:
        BadImage: it cannot be decoded.
    """
    import numpy as np

    picture = pixels.fit(pixels.decode(data, None, None), max_pixels)
    rng = np.random.default_rng(seed)
    if isinstance(noise, DiffusionNoise):
        return pixels.encode(diffusion(picture, noise.step, rng))
    return pixels.encode(gaussian(picture, noise.std, rng))


def diffusion(picture: Image.Image, step: int, rng: np.random.Generator) -> Image.Image:
    """x_t = sqrt(alpha-bar_t) x_0 + sqrt(1 - alpha-bar_t) noise on pixels in -1..1, then clipped.

    The forward process of DDPM in closed form (arXiv 2006.11239, equation 4).
    """
    import numpy as np

    pixels = np.asarray(picture, np.float32) / 127.5 - 1
    kept = signal(step)
    mixed = np.float32(math.sqrt(kept)) * pixels + np.float32(math.sqrt(1 - kept)) * _normal(pixels.shape, rng)
    return _picture((mixed + 1) / 2)


def gaussian(picture: Image.Image, std: float, rng: np.random.Generator) -> Image.Image:
    """x + std * noise on pixels in 0..1, then clipped."""
    import numpy as np

    pixels = np.asarray(picture, np.float32) / 255
    return _picture(pixels + np.float32(std) * _normal(pixels.shape, rng))


def signal(step: int) -> float:
    """The share of the picture's variance that is left after ``step`` (1 to 1000) noise steps, alpha-bar in DDPM: the
    product of 1 - beta over them, beta rising linearly.

    >>> round(signal(1), 4), round(signal(500), 4), round(signal(1000), 6)
    (0.9999, 0.0786, 4e-05)
    """
    import numpy as np

    return float(np.prod(1 - np.linspace(*BETAS, STEPS)[:step]))


def _normal(shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    """float32 [height, width, channels], standard normal, in square cells where the picture is larger than the grid."""
    import numpy as np

    height, width, channels = shape
    cell = max(1.0, max(height, width) / GRAIN)
    grid = rng.standard_normal((math.ceil(height / cell), math.ceil(width / cell), channels), np.float32)
    rows, columns = ((np.arange(side) / cell).astype(np.intp) for side in (height, width))
    return grid[rows[:, None], columns[None, :]]


def _picture(pixels: Any) -> Image.Image:
    import numpy as np
    from PIL import Image

    return Image.fromarray((np.clip(pixels, 0, 1) * 255).round().astype(np.uint8))
