"""mDPO's own corruption: a small piece of the original, blown up to the original's size.

The crop KEEPS between 1 % and 20 % of the area (the paper's "crop 0-20 %" removes the rest), so little is left to
support the chosen answer.
"""

from __future__ import annotations

import math
import random

import numpy as np
from PIL import Image

#: Width over height of the crop in pixels, drawn log-uniformly; torchvision's RandomResizedCrop default.
ASPECT = (3 / 4, 4 / 3)

Box = tuple[float, float, float, float]


def crop_box(width: int, height: int, area: tuple[float, float], rng: random.Random | np.random.Generator) -> Box:
    """A box (left, top, right, bottom) in fractional pixels whose area is a share in ``area`` of the image's.

    Fractional edges keep the share exact on small images too. Where the drawn aspect does not fit into a very long
    image, the crop takes the image's full short side and keeps its area.
    """
    size = width * height * rng.uniform(*area)
    aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
    crop_width = min(math.sqrt(size * aspect), width)
    crop_height = min(size / crop_width, height)
    crop_width = min(size / crop_height, width)
    left = rng.uniform(0, width - crop_width)
    top = rng.uniform(0, height - crop_height)
    return left, top, min(left + crop_width, width), min(top + crop_height, height)


def crop(image: Image.Image, keep_area: tuple[float, float], rng: random.Random | np.random.Generator) -> Image.Image:
    """A piece with a share in ``keep_area`` of the area, enlarged to the image's size."""
    box = crop_box(image.width, image.height, keep_area, rng)
    return image.resize(image.size, Image.Resampling.BILINEAR, box=box)
