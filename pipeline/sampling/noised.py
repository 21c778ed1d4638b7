"""Pictures under noise, so that a model's own answer gets worse (SeVa, Zhu et al. 2024, arXiv 2404.10501)."""

from __future__ import annotations

from pipeline.base.images import pixels
from pipeline.sampling.config import DiffusionNoise, Noise


def add_noise(data: bytes, noise: Noise, seed: int, max_pixels: int | None = None) -> bytes:
    """The picture in the encoded file ``data`` under noise, as a PNG file; the same for the same seed.

    It is first scaled down to ``max_pixels``: noise on what is then averaged away would be less than was asked for.

    Raises:
        BadImage: it cannot be decoded.
    """
    import numpy as np

    from pipeline.base.noise import diffusion, gaussian

    picture = pixels.fit(pixels.decode(data, None, None), max_pixels)
    rng = np.random.default_rng(seed)
    if isinstance(noise, DiffusionNoise):
        return pixels.encode(diffusion(picture, noise.step, rng))
    return pixels.encode(gaussian(picture, noise.std, rng))
