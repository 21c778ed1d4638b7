"""The rejected image of mDPO: the pair's own image, changed so that it no longer supports the chosen answer.

The authors' code draws a new crop in every forward pass, hence another one for the policy than for the reference; here
the corrupted image is a function of (seed, pair, image), so both see the same picture in every epoch. It is made from
the picture before the processor sees it, so it works for any model and never lands on padding. ``docs/corruption.md``
shows every kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from PIL import Image

from pipeline.base import noise, plugins
from training.config.objective import Corruption
from training.corruption import augment, clip_mask, crop, mask
from training.corruption.chance import Rng, generator, other_index
from training.errors import DataError, PluginError

__all__ = ["STRENGTH", "VERSION", "corrupt", "identity", "other_index"]

#: Raised whenever a kind gives other pixels for the same arguments.
VERSION = 1

#: ``Corruption.strength`` where the configuration leaves it open.
STRENGTH = {"gaussian": 1.0, "block_mask": 0.5, "clip_mask": 0.09}


def corrupt(
    image: Image.Image,
    config: Corruption,
    seed: int,
    pair_id: str,
    index: int = 0,
    text: str = "",
    pair: str | None = None,
) -> Image.Image:
    """The corrupted version of the pair's ``index``-th image: a new RGB image of the same size.

    A pure function of its arguments; ``clip_mask`` also reads a CLIP model, which ``identity`` names.

    Args:
        image: RGB.
        config: what to do. ``other`` and ``data`` take another picture instead, which only the caller has.
        pair_id: anything that is this pair's own and stays when rows move.
        text: the chosen response; of our kinds only ``clip_mask`` reads it.
        pair: what errors call the pair.

    Raises:
        ValueError: ``config.kind`` is ``other`` or ``data``, or the image is not RGB.
        PluginError: a kind that is not ours raised something, or gave no such image.
        DataError: ``clip_mask`` without a text.
        ModelError: ``clip_mask``, and the CLIP model cannot be loaded.
    """
    name = f"{pair or f'pair {pair_id}'}, image {index}"
    if image.mode != "RGB":
        raise ValueError(f"{name}: mode is {image.mode}; convert it to RGB first")
    rng = generator(seed, pair_id, index, config.kind)
    if (plug_in := config.slot.open()) is not None:
        return _by_plugin(plug_in, config.kind, image, rng, text, name)
    if config.kind not in _KINDS:
        raise ValueError(f"corruption.kind={config.kind} takes a picture of the dataset; the caller chooses it")
    try:
        return _KINDS[config.kind](image, config, rng, text)
    except DataError as error:
        raise DataError(f"{name}: {error}") from error


#: What each kind does; ``other`` and ``data`` are not made from the image.
_KINDS: Mapping[str, Callable[[Image.Image, Corruption, Rng, str], Image.Image]] = {
    "crop": lambda image, config, rng, text: crop.crop(image, config.keep_area, rng),
    "black": lambda image, config, rng, text: mask.black(image),
    "gaussian": lambda image, config, rng, text: noise.gaussian(image, _strength(config), rng),
    "diffusion": lambda image, config, rng, text: noise.diffusion(image, config.steps, rng),
    "block_mask": lambda image, config, rng, text: mask.block_mask(image, _strength(config), rng),
    "augment": lambda image, config, rng, text: augment.augment(image, rng),
    "clip_mask": lambda image, config, rng, text: clip_mask.clip_mask(
        image, _strength(config), config.candidates, _clip_model(config), text, rng
    ),
}


def _by_plugin(plug_in: Any, kind: str, image: Image.Image, rng: Rng, text: str, name: str) -> Image.Image:
    try:
        picture = plug_in.corrupt(image.copy(), rng, text)
    except Exception as error:  # whatever other people's code raises
        raise PluginError(f"{name}: {kind} raised {plugins.failure(plug_in, error)}; correct it") from error
    if not isinstance(picture, Image.Image):
        raise PluginError(f"{name}: {kind} gives {picture!r:.80}; give an RGB image of {image.width} x {image.height}")
    if (picture.mode, picture.size) != (image.mode, image.size):
        raise PluginError(
            f"{name}: {kind} gives an image of {picture.width} x {picture.height} and mode {picture.mode}; give one of "
            f"{image.width} x {image.height} and mode {image.mode}, as the image is"
        )
    return picture


def identity(config: Corruption) -> str:
    """What the pixels depend on beside the arguments of ``corrupt``: the code, and the content of the CLIP model.

    Reads the model's files once per process. For ``Corruption()``: ``"1"``. Raises ``ModelError`` without a model.
    """
    if (identified := config.slot.identity()) is not None:
        return f"{VERSION}:{identified}"
    return str(VERSION) if config.kind != "clip_mask" else f"{VERSION}:{clip_mask.identity(_clip_model(config))}"


def _strength(config: Corruption) -> float:
    return config.strength if config.strength is not None else STRENGTH[config.kind]


def _clip_model(config: Corruption) -> str:
    if config.clip_model is None:
        raise ValueError("corruption.kind=clip_mask needs corruption.clip_model, for instance scenes-clip")
    return config.clip_model
