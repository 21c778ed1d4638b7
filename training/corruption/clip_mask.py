"""The mask that hides what the text speaks of, as far as CLIP can tell.

PEA-DPO (arXiv 2608.19598): of 30 random masks of 9 % of the area, take the one whose picture is least like the text.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from PIL import Image

from pipeline.base.errors import EngineError
from pipeline.base.model_names import resolve
from reward.scorers.clip import ClipScorer
from training.corruption.crop import Box, crop_box
from training.corruption.mask import blacken
from training.errors import DataError, ModelError

#: Longer side of the pictures that are compared, at most. CLIP shrinks them to 224 to 448 pixels anyway, and 30 copies
#: of a photograph would not fit into memory.
COMPARED_SIDE = 512


def clip_mask(
    image: Image.Image, share: float, candidates: int, model: str, text: str, rng: np.random.Generator
) -> Image.Image:
    """The image under the one of ``candidates`` masks with the lowest CLIP similarity to ``text``; of equals the first.

    A mask is a black rectangle with ``share`` of the area, sides 3:4 to 4:3, placed evenly. CLIP reads the beginning of
    a long text only (77 tokens for most).

    Raises:
        DataError: the text is empty.
        ModelError: see ``similarities``.
    """
    if not text.strip():
        raise DataError("corruption.kind=clip_mask compares with the chosen response, and that has no text")
    boxes = masks(image.size, share, candidates, rng)
    small = image.copy()
    small.thumbnail((COMPARED_SIDE, COMPARED_SIDE))
    scores = similarities(model, [blacken(small, box) for box in boxes], text)
    return blacken(image, boxes[scores.index(min(scores))])


def masks(size: tuple[int, int], share: float, count: int, rng: np.random.Generator) -> list[Box]:
    """``count`` rectangles (left, top, right, bottom) with ``share`` of the area, in shares of width and height."""
    width, height = size
    area = min(share, 1.0)
    boxes = (crop_box(width, height, (area, area), rng) for _ in range(count))
    return [(left / width, top / height, right / width, bottom / height) for left, top, right, bottom in boxes]


def similarities(model: str, pictures: Sequence[Image.Image], text: str) -> list[float]:
    """Cosine of each picture and the text, all pictures in one batch (of 64 at most) through ``model``.

    ``model`` is a built-in name, a folder, ``hf-hub:OWNER/NAME``, or ``ARCHITECTURE@PRETRAINED`` with an open_clip
    tag or a checkpoint. It is loaded on first use, once per process, on a GPU when there is one.

    Raises ``ModelError`` when it cannot be loaded or run.
    """
    rows = [{"images": [_encode(picture)], "candidates": [{"text": text}]} for picture in pictures]
    try:
        scores = _scorer(model).score(rows)["clip.cosine"]
    except ModelError:
        raise
    except Exception as error:  # open_clip, torch, safetensors and the hub client each raise their own kinds
        raise ModelError(f"corruption.clip_model={model!r} cannot be used ({type(error).__name__}: {error})") from error
    # No value is None: every row has an image and the text is not empty.
    return [float(values[0]) for values in scores]  # type: ignore[arg-type]


def identity(model: str) -> str:
    """What the similarities depend on; a local model counts by its content. Raises ``ModelError`` without a model."""
    # In float32, as ever: a mask is the same on every machine.
    return _scorer(model).version.removesuffix(":float32")


@lru_cache(maxsize=2)
def _scorer(model: str) -> ClipScorer:
    architecture, at, pretrained = model.partition("@")
    try:
        if at and "/" not in architecture:  # folders and hub ids may carry an @ of their own
            return ClipScorer(architecture, pretrained, dtype="float32")
        return ClipScorer(resolve(model), dtype="float32")
    except (EngineError, ValueError) as error:
        problem = str(error).replace("\n  -> ", "; ")  # how an EngineError prints its remedy
        raise ModelError(
            f"corruption.clip_model={model!r}: {problem}; it takes scenes-clip, a folder, hf-hub:OWNER/NAME, "
            "or ARCHITECTURE@PRETRAINED such as ViT-B-32@openai"
        ) from error


def _encode(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "BMP")  # exact, and quicker to write than PNG
    return buffer.getvalue()
