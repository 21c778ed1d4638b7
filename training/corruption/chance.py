"""What chance decides, decided by hashes: the same in every process, whatever else was drawn before."""

from __future__ import annotations

import hashlib
import math
import random
from typing import Any

import numpy as np

from training.errors import DataError

Rng = Any  # a numpy.random.Generator, and for the crop a random.Random


def generator(seed: int, pair_id: str, index: int, kind: str) -> Rng:
    """The one source of chance of a corrupted image. Another kind draws from another stream.

    The crop's own is kept from when it was the only kind: stored reference log-probs rest on it.
    """
    if kind == "crop":
        return random.Random(_digest(f"{seed}|{pair_id}|{index}"))
    return np.random.default_rng(_digest(f"{seed}|{pair_id}|{index}|{kind}"))


def other_index(seed: int, pair_id: str, index: int, count: int, row: int, attempt: int = 0) -> int:
    """A pair other than ``row`` out of ``count``, whose image stands in for the ``index``-th image of ``row``.

    The first is drawn evenly; ``attempt`` counts the pairs that turned out to show the same picture. Attempts 0 to
    ``count - 2`` name every other pair exactly once, with a drawn stride, because neighbours often share an image.

    Raises ``DataError`` when there is no pair left to try.
    """
    others = count - 1
    if attempt >= others:
        tried = "every other pair shows the same picture" if others else "there is no other pair"
        raise DataError(
            f"pair {pair_id}, image {index}: {tried}, so corruption.kind=other has none to take; "
            "choose another kind, for instance crop"
        )
    rng = random.Random(_digest(f"{seed}|{pair_id}|{index}|other"))
    start = rng.randrange(others)
    stride = rng.randrange(others) + 1
    while math.gcd(stride, others) > 1:  # 1 always qualifies, so this ends
        stride = rng.randrange(others) + 1
    place = (start + attempt * stride) % others
    return place + (place >= row)


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
