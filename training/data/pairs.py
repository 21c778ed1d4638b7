"""A dataset of preference pairs as training reads it: token ids, and images that are decoded when asked for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
from PIL import Image

from pipeline.base.images import image_files, pixels
from reward.forward.prompt import Prompt
from training.config import Corruption
from training.corruption import corrupt, other_index
from training.errors import DataError


@dataclass(frozen=True, slots=True)
class Pair:
    """One preference pair as token ids; the images stay encoded in the dataset.

    ``id`` is a hash of the whole row, so it is stable when rows move; ``name`` is what errors call the row.
    ``corrupted`` is the prompt next to the rejected image, ``similar`` the prompt next to another image whose own good
    answer is ``similar_ids`` (SymMPO); None and empty where the objective does not read them, or the row has no such
    image. ``rejected_ids`` are empty where the data is one of good answers alone.
    """

    row: int
    id: str
    name: str
    prompt: Prompt
    chosen_ids: tuple[int, ...]
    rejected_ids: tuple[int, ...]
    chosen_text: str = ""
    corrupted: Prompt | None = None
    similar: Prompt | None = None
    similar_ids: tuple[int, ...] = ()

    @property
    def tokens(self) -> int:
        """Length of the longest sequence of the pair."""
        longest = max(len(self.chosen_ids), len(self.rejected_ids))
        return len(self.prompt.ids) + longest


@dataclass(frozen=True, slots=True)
class Skipped:
    """A row that is not trained on, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class PairDataset:
    """Tokenised pairs, in memory or in a file, and what is needed to read their images. ``pairs[i].row`` is the row in
    ``rows``."""

    pairs: Sequence[Pair]
    rows: datasets.Dataset
    processor: Any
    corruption: Corruption
    seed: int
    skipped: tuple[Skipped, ...] = ()

    def image(self, pair: Pair, index: int) -> Image.Image:
        """The pair's ``index``-th image, decoded, RGB."""
        return decode(self.rows[pair.row]["images"][index], pair.name, index)

    def similar_image(self, pair: Pair, index: int) -> Image.Image:
        """The ``index``-th image of the similar prompt."""
        return decode(self.rows[pair.row]["similar_images"][index], pair.name, index)

    def corrupted_image(self, pair: Pair, index: int, original: Image.Image | None = None) -> Image.Image:
        """The rejected image; every call returns the same pixels. ``original`` is ``image`` of the same arguments, if
        it has been decoded already."""
        return rejected_image(self.rows, pair, index, self.corruption, self.seed, original)


def rejected_image(
    rows: datasets.Dataset,
    pair: Pair,
    index: int,
    corruption: Corruption,
    seed: int,
    original: Image.Image | None = None,
) -> Image.Image:
    """The ``index``-th rejected image of a pair: from the data, of another row, or its own one (``original``, if it has
    been decoded already) corrupted."""
    if corruption.kind == "data":
        return decode(rows[pair.row]["rejected_images"][index], f"{pair.name}, rejected_images", index)
    if corruption.kind == "other":
        other = _other_row(rows, pair, index, seed)
        images = rows[other]["images"]
        return decode(images[index % len(images)], f"row {other}", index % len(images))
    image = original or decode(rows[pair.row]["images"][index], pair.name, index)
    return corrupt(image, corruption, seed, pair.id, index, pair.chosen_text, pair.name)


def decode(
    item: Mapping[str, Any], name: str, index: int, max_bytes: int | None = None, max_pixels: int | None = None
) -> Image.Image:
    """The pixels of an encoded image, RGB; ``name`` and ``index`` are what an error calls it. Limits are for images
    that nobody has looked at before.

    Raises:
        DataError: it cannot be read, or is too large.
    """
    try:
        return pixels.decode(image_files.load(item, max_bytes), max_pixels, max_bytes)
    except pixels.BadImage as error:
        raise DataError(f"{name}: image {index} cannot be read ({error}); replace it or drop the row") from error
    except Exception as error:  # Pillow raises many kinds on a damaged file
        raise DataError(
            f"{name}: image {index} cannot be read ({type(error).__name__}: {error}); replace it or drop the row"
        ) from error


def _other_row(rows: datasets.Dataset, pair: Pair, index: int, seed: int) -> int:
    digest = _digest(rows[pair.row]["images"][index])
    for attempt in range(len(rows) - 1):
        other = other_index(seed, pair.id, index, len(rows), pair.row, attempt)
        images = rows[other]["images"]
        if images and _digest(images[index % len(images)]) != digest:
            return other
    raise DataError(f"row {pair.row}: no other row has another image; use another corruption.kind")


def _digest(item: Mapping[str, Any]) -> str:
    return hashlib.blake2b(image_files.load(item), digest_size=16).hexdigest()
