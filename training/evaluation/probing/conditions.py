"""The rows of a dataset beside other images than their own; the trainer's code then reads them like any others."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import datasets
import pyarrow.compute as pc
from PIL import Image

from training.data.pairs import Pair, PairDataset
from training.data.subset import few
from training.errors import DataError
from training.evaluation.probing.swap import partners

#: One encoded image as the dataset holds it.
Item = Mapping[str, Any]
_TEXTS = ("id", "prompt", "chosen", "rejected")


def select_rows(rows: datasets.Dataset, limit: int | None, seed: int) -> list[int]:
    """The numbers of the rows to probe: ``limit`` of those that have an image.

    Raises:
        DataError: no row has one.
    """
    numbers = [index for index, count in enumerate(_counts(rows)) if count]
    if not numbers:
        raise DataError("no row of the dataset has an image, so there is nothing to take away; give pairs with images")
    if limit is None:
        return numbers
    # By what a row says, so that the same ones are taken when rows move.
    texts = rows.select_columns([column for column in _TEXTS if column in rows.column_names]).select(numbers)
    return [numbers[place] for place in few([repr(sorted(row.items())) for row in texts], limit, seed)]


def _counts(rows: datasets.Dataset) -> Iterator[int]:
    """Images of each row; their bytes are not read."""
    for batch in rows.select_columns(["images"]).with_format("arrow").iter(batch_size=1000):
        yield from pc.list_value_length(batch["images"]).to_pylist()


def show(true: PairDataset, condition: str) -> datasets.Dataset:
    """The rows of ``true``, each beside the images of ``condition``; rows that ``true`` has skipped stay as they are.

    ``swapped``: those of another pair; ``corrupted``: the trainer's rejected image. Under ``true`` and ``none`` it is
    the rows themselves: the trainer's ``use_images=false`` takes their images away.

    Raises:
        DataError: there is no other image, or ``corruption.kind=data`` and the dataset has no rejected images.
    """
    rows = true.rows
    if condition == "swapped":
        donors = partners([pair.id for pair in true.pairs], [pair.prompt.images for pair in true.pairs])
        lent = [rows[true.pairs[donor].row]["images"] for donor in donors]
    elif condition == "corrupted":
        if true.corruption.kind == "data" and "rejected_images" not in rows.column_names:
            raise DataError("the dataset has no column rejected_images, which corruption.kind=data reads")
        if true.corruption.kind == "data":
            _require_rejected(true)
        lent = [_corrupted_images(true, pair) for pair in true.pairs]
    else:
        return rows
    images = {pair.row: items for pair, items in zip(true.pairs, lent, strict=True)}
    return rows.map(
        lambda row, index: {"images": images.get(index, row["images"])},
        with_indices=True,
        features=rows.features,
        load_from_cache_file=False,
        keep_in_memory=True,
    )


def _require_rejected(true: PairDataset) -> None:
    for pair in true.pairs:
        wanted, given = len(pair.prompt.images), len(true.rows[pair.row]["rejected_images"] or ())
        if given != wanted:
            raise DataError(
                f"{pair.name}: has {given} of the {wanted} rejected_images that corruption.kind=data shows; drop the "
                "row, or take another corruption"
            )


def _corrupted_images(true: PairDataset, pair: Pair) -> Sequence[Item]:
    return [_encode(true.corrupted_image(pair, index)) for index in range(len(pair.prompt.images))]


def _encode(image: Image.Image) -> Item:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")  # exact
    return {"bytes": buffer.getvalue(), "path": None}
