"""What is left out of a source, and why: images seen before, and what belongs to a benchmark."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa

from pipeline.base.errors import InputError
from pipeline.base.images.image_files import load, public
from pipeline.base.images.pixels import MAX_BYTES, BadImage, decode
from pipeline.base.tables import MESSAGE
from pipeline.sources.admission.ngrams import Benchmark
from pipeline.sources.admission.phash import Index, phash
from pipeline.sources.config import Decontaminate, Dedup
from pipeline.sources.readers import files
from pipeline.sources.readers.folder import SUFFIXES

#: Rows that a source left out. ``images`` are paths; ``detail`` says what the row is a copy of, or what it shares.
DROPPED = pa.schema(
    [
        ("id", pa.string()),
        ("source", pa.string()),
        ("images", pa.list_(pa.string())),
        ("prompt", pa.list_(MESSAGE)),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
#: Images and conversation of another row; the filters below are asked only about the first of them.
DUPLICATE = "duplicate_prompt"
#: One says yes to its question and another no: nobody knows which is right, and none of them stays.
CONTRADICTED = "contradicting_answers"
REASONS = (
    DUPLICATE,
    CONTRADICTED,
    "duplicate_image",
    "near_duplicate_image",
    "contaminated_text",
    "contaminated_image",
)


class Candidate(NamedTuple):
    """What the filter looks at. ``digests`` and ``hashes`` belong to the images in order; text-only rows have none."""

    id: str
    digests: Sequence[bytes]
    hashes: Sequence[int | None]
    texts: Sequence[str]


class Filter:
    """Decides about rows that come sorted by id, so that what stays does not depend on the order of the input.

    State: the images of the rows kept so far, some 300 bytes each (none without ``dedup``).
    """

    def __init__(self, dedup: Dedup, decontaminate: Decontaminate) -> None:
        self._exact, self._perceptual = dedup.exact, dedup.perceptual
        self._benchmark = Benchmark(decontaminate.texts, decontaminate.ngram) if decontaminate.texts else None
        self._forbidden = _images(decontaminate) if decontaminate.images else None
        self._kept: dict[bytes, str] = {}
        self._index = Index(self._perceptual or 0)

    @staticmethod
    def idle(dedup: Dedup, decontaminate: Decontaminate) -> bool:
        """Whether nothing is to be left out but duplicate prompts."""
        seen = dedup.exact or dedup.perceptual is not None
        return not (seen or decontaminate.texts or decontaminate.images)

    @staticmethod
    def hashes(dedup: Dedup, decontaminate: Decontaminate) -> bool:
        """Whether perceptual hashes are needed."""
        return dedup.perceptual is not None or bool(decontaminate.images)

    def why(self, row: Candidate) -> tuple[str, str] | None:
        """Reason and detail if the row is to be dropped; otherwise its images are known from now on."""
        reason = self._contamination(row) or self._repetition(row)
        if reason is None and (self._exact or self._perceptual is not None):
            for digest, value in zip(row.digests, row.hashes, strict=True):
                self._kept.setdefault(digest, row.id)
                if self._perceptual is not None and value is not None:
                    self._index.add(value, row.id)
        return reason

    def _contamination(self, row: Candidate) -> tuple[str, str] | None:
        if self._benchmark is not None and (gram := self._benchmark.overlap(row.texts)) is not None:
            return "contaminated_text", f"a benchmark has {gram!r}"
        if self._forbidden is not None:
            for value in row.hashes:
                near = self._forbidden.nearest(value) if value is not None else None
                if near is not None:
                    return "contaminated_image", f"{near[0]} bits from the benchmark's {near[1]}"
        return None

    def _repetition(self, row: Candidate) -> tuple[str, str] | None:
        """A row of several images is a copy if every one of them is."""
        if not row.digests:
            return None
        if self._exact and all(digest in self._kept for digest in row.digests):
            return "duplicate_image", f"same image as {self._kept[row.digests[0]]}"
        if self._perceptual is None:
            return None
        nearest = []
        for digest, value in zip(row.digests, row.hashes, strict=True):
            # The very file of a row that stays is no copy of it.
            near = self._index.nearest(value) if value is not None and digest not in self._kept else None
            if near is None:
                return None
            nearest.append(near)
        bits, other = max(nearest)
        return "near_duplicate_image", f"{bits} bits from the image of {other}"


def stamp(decontaminate: Decontaminate) -> dict[str, object]:
    """What the benchmark says, wherever it lies; empty if there is none."""
    if not (decontaminate.images or decontaminate.texts):
        return {}
    return {
        "ngram": decontaminate.ngram,
        "distance": decontaminate.distance,
        "images": files.digest(told for _, told in _benchmark_images(decontaminate)),
        "texts": files.digest(files.stamp(path) for path in decontaminate.texts),
    }


def _images(spec: Decontaminate) -> Index:
    index = Index(spec.distance)
    for path, _ in _benchmark_images(spec):
        try:
            index.add(phash(decode(load({"bytes": None, "path": path}, MAX_BYTES))), public(path))
        except (OSError, BadImage) as error:
            remedy = "correct or remove it: an image that cannot be compared cannot be kept out"
            raise InputError(f"decontaminate.images: {public(path)}: {error}", remedy) from error
    if not len(index):
        raise InputError("decontaminate.images: no image found", "check the paths")
    return index


def _benchmark_images(spec: Decontaminate) -> Iterator[tuple[str, str]]:
    """``(path, stamp)`` of the files that paths, folders and globs stand for."""
    for pattern in spec.images:
        for path in files.expand(pattern):
            if files.is_folder(path):
                base = files.absolute(path)
                yield from ((f"{base}/{name}", told) for name, told in files.walk(path, SUFFIXES))
            else:
                yield path, files.stamp(path, whole=False)
