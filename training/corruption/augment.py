"""MoCo v2's augmentation (Chen, Fan, Girshick, He 2020, arXiv 2003.04297), which mDPO compares with its crop."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

from training.corruption.crop import crop

KEPT_AREA = (0.2, 1.0)
JITTER, JITTER_SHARE = 0.4, 0.8  # of brightness, contrast and saturation: factors in 1 - 0.4 .. 1 + 0.4
HUE = 0.1  # turns of the colour wheel
GREY_SHARE = 0.2
BLUR, BLUR_SHARE = (0.1, 2.0), 0.5  # standard deviation in pixels of a picture of ``BLUR_SIDE``
BLUR_SIDE = 224
FLIP_SHARE = 0.5


def augment(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Crop and resize, colour jitter in random order, grey, blur, mirror, each with the probability above.

    MoCo blurs pictures of 224 pixels. On a larger picture the blur grows with the short side, because a model that
    shrinks the picture would undo it.
    """
    from torchvision.transforms.v2 import functional  # seconds to import, with torch

    # Every number is drawn, used or not, so that one decision does not shift the chance of the next.
    factors = rng.uniform(1 - JITTER, 1 + JITTER, 3)
    hue = float(rng.uniform(-HUE, HUE))
    order = rng.permutation(4)
    sigma = float(rng.uniform(*BLUR)) * max(1.0, min(image.size) / BLUR_SIDE)
    jitter, grey, blur, flip = rng.random(4) < (JITTER_SHARE, GREY_SHARE, BLUR_SHARE, FLIP_SHARE)

    picture = crop(image, KEPT_AREA, rng)
    if jitter:
        steps = (
            lambda shown: functional.adjust_brightness(shown, float(factors[0])),
            lambda shown: functional.adjust_contrast(shown, float(factors[1])),
            lambda shown: functional.adjust_saturation(shown, float(factors[2])),
            lambda shown: functional.adjust_hue(shown, hue),
        )
        for step in order:
            picture = steps[step](picture)
    if grey:
        picture = functional.rgb_to_grayscale(picture, num_output_channels=3)
    if blur:
        picture = picture.filter(ImageFilter.GaussianBlur(sigma))
    return functional.horizontal_flip(picture) if flip else picture
