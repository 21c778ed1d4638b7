"""The rejected image of mDPO: a small piece of the original, blown up to the original's size.

The crop KEEPS between 1 % and 20 % of the area (the paper's "crop 0-20 %" removes the rest), so little is left to
support the chosen answer. The authors' code draws a new crop in every forward pass, hence another one for the policy
than for the reference; here the crop is a function of (seed, pair, image), so both see the same picture in every epoch.
"""

from __future__ import annotations

import hashlib
import math
import random

from PIL import Image

#: Width over height of the crop in pixels, drawn log-uniformly; torchvision's RandomResizedCrop default.
ASPECT = (3 / 4, 4 / 3)

Box = tuple[float, float, float, float]


def crop_box(width: int, height: int, keep_area: tuple[float, float], rng: random.Random) -> Box:
    """A box (left, top, right, bottom) in fractional pixels whose area is a share in ``keep_area`` of the image's.

    Fractional edges keep the share exact on small images too. Where the drawn aspect does not fit into a very long
    image, the crop takes the image's full short side and keeps its area.
    """
    area = width * height * rng.uniform(*keep_area)
    aspect = math.exp(rng.uniform(math.log(ASPECT[0]), math.log(ASPECT[1])))
    crop_width = min(math.sqrt(area * aspect), width)
    crop_height = min(area / crop_width, height)
    crop_width = min(area / crop_height, width)
    left = rng.uniform(0, width - crop_width)
    top = rng.uniform(0, height - crop_height)
    return left, top, min(left + crop_width, width), min(top + crop_height, height)


def corrupt(image: Image.Image, keep_area: tuple[float, float], seed: int, pair_id: str, index: int = 0) -> Image.Image:
    """The corrupted version of the pair's ``index``-th image: same size, same mode, a pure function of its arguments.

    Applied to the picture before the processor sees it, so it works for any model and never lands on padding.
    """
    digest = hashlib.blake2b(f"{seed}|{pair_id}|{index}".encode(), digest_size=8).digest()
    box = crop_box(image.width, image.height, keep_area, random.Random(int.from_bytes(digest)))
    return image.resize(image.size, Image.Resampling.BILINEAR, box=box)
