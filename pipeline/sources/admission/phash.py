"""Images that look alike: a hash of 64 bits, and an index that finds near ones without comparing all pairs."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

_BANDS, _WIDTH = 4, 16


def phash(image: Image.Image) -> int:
    """The 64 bits of ``imagehash.phash``: signs of low frequencies. Scaling and recompressing change a few of them."""
    import imagehash

    return int(str(imagehash.phash(image)), 16)


class Index:
    """Hashes with a label, and which of them lie within ``distance`` bits (at most 15) of a given one.

    Two hashes that differ in d bits agree to within d // 4 bits in one of their four bands of 16 bits at least, so only
    hashes with such a band are looked at.
    """

    def __init__(self, distance: int) -> None:
        if not 0 <= distance < 16:
            raise ValueError(f"distance={distance} must be from 0 to 15")
        self._distance = distance
        near = distance // _BANDS
        self._masks = [
            sum(1 << bit for bit in bits) for n in range(near + 1) for bits in combinations(range(_WIDTH), n)
        ]
        self._bands: list[dict[int, array[int]]] = [{} for _ in range(_BANDS)]
        self._labels: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._labels)

    def add(self, value: int, label: str) -> None:
        """The first label of a hash stays."""
        if value in self._labels:
            return
        self._labels[value] = label
        for band, part in zip(self._bands, _parts(value), strict=True):
            band.setdefault(part, array("Q")).append(value)

    def nearest(self, value: int) -> tuple[int, str] | None:
        """Distance in bits and label of the nearest hash within reach, or None; of several, the smallest hash."""
        if value in self._labels:
            return 0, self._labels[value]
        best: tuple[int, int] | None = None
        for band, part in zip(self._bands, _parts(value), strict=True):
            for mask in self._masks:
                for other in band.get(part ^ mask, ()):
                    near = ((value ^ other).bit_count(), other)
                    if near[0] <= self._distance and (best is None or near < best):
                        best = near
        return (best[0], self._labels[best[1]]) if best else None


def _parts(value: int) -> Iterator[int]:
    return (value >> shift & 0xFFFF for shift in range(0, 64, _WIDTH))
