"""The rejected image of mDPO: the pair's own image, changed so that it no longer supports the chosen answer.

The authors' code draws a new crop in every forward pass, hence another one for the policy than for the reference; here
the corrupted image is a function of (seed, pair, image), so both see the same picture in every epoch. It is made from
the picture before the processor sees it, so it works for any model and never lands on padding. ``docs/corruption.md``
shows every kind.
"""

from __future__ import annotations

from typing import assert_never

from PIL import Image

from pipeline.base import noise
from training.config.objective import Corruption
from training.corruption import augment, clip, crop, mask
from training.corruption.draw import crop_generator, generator, other_index

__all__ = ["STRENGTH", "VERSION", "corrupt", "identity", "other_index"]

#: Raised whenever a kind gives other pixels for the same arguments.
VERSION = 1

#: ``Corruption.strength`` where the configuration leaves it open.
STRENGTH = {"gaussian": 1.0, "block_mask": 0.5, "clip_mask": 0.09}


def corrupt(
    image: Image.Image, config: Corruption, seed: int, pair_id: str, index: int = 0, text: str = ""
) -> Image.Image:
    """The corrupted version of the pair's ``index``-th image: a new RGB image of the same size.

    A pure function of its arguments; ``clip_mask`` also reads a CLIP model, which ``identity`` names.

    Args:
        image: RGB.
        config: what to do. ``other`` and ``data`` take another picture instead, which only the caller has.
        pair_id: anything that is this pair's own and stays when rows move.
        text: the chosen response; only ``clip_mask`` reads it.

    Raises:
        ValueError: ``config.kind`` is ``other`` or ``data``, or the image is not RGB.
        DataError: ``clip_mask`` without a text.
        ModelError: ``clip_mask``, and the CLIP model cannot be loaded.
    """
    if image.mode != "RGB":
        raise ValueError(f"pair {pair_id}, image {index}: mode is {image.mode}; convert it to RGB first")
    kind = config.kind
    rng = generator(seed, pair_id, index, kind)
    strength = config.strength if config.strength is not None else STRENGTH.get(kind, 0.0)
    if kind == "crop":
        return crop.crop(image, config.keep_area, crop_generator(seed, pair_id, index))
    if kind == "black":
        return mask.black(image)
    if kind == "gaussian":
        return noise.gaussian(image, strength, rng)
    if kind == "diffusion":
        return noise.diffusion(image, config.steps, rng)
    if kind == "block_mask":
        return mask.block_mask(image, strength, rng)
    if kind == "augment":
        return augment.augment(image, rng)
    if kind == "clip_mask":
        name = f"pair {pair_id}, image {index}"
        return clip.clip_mask(image, strength, config.candidates, _clip_model(config), text, rng, name)
    if kind == "other" or kind == "data":
        raise ValueError(f"corruption.kind={kind} takes a picture of the dataset; the caller chooses it")
    assert_never(kind)


def identity(config: Corruption) -> str:
    """What the pixels depend on beside the arguments of ``corrupt``: the code, and the content of the CLIP model.

    Reads the model's files once per process. For ``Corruption()``: ``"1"``. Raises ``ModelError`` without a model.
    """
    return str(VERSION) if config.kind != "clip_mask" else f"{VERSION}:{clip.identity(_clip_model(config))}"


def _clip_model(config: Corruption) -> str:
    if config.clip_model is None:
        raise ValueError("corruption.kind=clip_mask needs corruption.clip_model, for instance scenes-clip")
    return config.clip_model
