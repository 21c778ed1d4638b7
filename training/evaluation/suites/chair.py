"""CHAIR on COCO images, from COCO's annotations and a list of synonyms.

Layout: ``instances_*.json`` and ``captions_*.json`` (the original takes those of train2014 and val2014), and
``synonyms.txt`` unless another list is named.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from reward.scorers.objects import ObjectVerdict
from training.errors import DataError
from training.evaluation import chair, coco
from training.evaluation.asked import Answered, Asked, pairs
from training.evaluation.ratio import Term
from training.evaluation.tally import Tally
from training.evaluation.words.coco_words import Words, words

VERSION = "2"
SYNONYMS = "synonyms.txt"
METRICS = ("chair_i", "chair_s", "recall", "mean_length")


class Reader(Protocol):
    """What finds the objects in a caption, such as ``coco_words.Words``."""

    def judge(self, text: str, truth: frozenset[str]) -> ObjectVerdict: ...


def questions(
    data: Path,
    variant: str = "standalone",
    synonyms: Path | None = None,
    images: int | None = 500,
    seed: int = 0,
    ids: Iterable[int] | None = None,
    prompt: str = "Please describe this image in detail.",
) -> list[Asked]:
    """One description per image: those of ``ids``, else ``images`` drawn from ``instances_val*.json`` (all, if None).

    The truth of an image is its annotated categories and what its captions name, both as ``variant`` reads them; score
    with the same variant.

    Raises:
        DataError: a file is missing or malformed, an id is not annotated, or there are too few images.
    """
    known = load(data, variant, synonyms)
    paths = coco.paths(data, "instances")
    if ids is not None:
        annotated = coco.instances(paths)
        chosen = list(dict.fromkeys(ids))
        lost = [id for id in chosen if id not in annotated]
        if lost:
            raise DataError(f"image {lost[0]} is not in {data}/instances_*.json; add the file that it is in")
    else:
        annotated = coco.instances([path for path in paths if "val" in path.name] or paths)
        chosen = sorted(annotated)
        if images is not None and images > len(chosen):
            raise DataError(f"images={images}, but only {len(chosen)} are annotated; ask for fewer")
        chosen = chosen if images is None else sorted(random.Random(f"chair:images:{seed}").sample(chosen, images))
    said = coco.captions(coco.paths(data, "captions"), frozenset(chosen))
    return [
        Asked(
            str(id),
            annotated[id].file,
            prompt,
            {"objects": sorted(known.truth(annotated[id].categories, said.get(id, ())))},
        )
        for id in chosen
    ]


def load(data: Path, variant: str, synonyms: Path | None) -> Words:
    """The variant with the list that is named, else with ``synonyms.txt`` in ``data`` if it wants one."""
    beside = data / SYNONYMS
    return words(variant, beside if synonyms is None and variant != "coco80" and beside.exists() else synonyms)


def score(asked: Sequence[Asked], answers: Mapping[str, Answered], known: Reader) -> Tally:
    """``METRICS``; every caption counts, and an image that is described twice counts twice, as in the original.

    Raises:
        ValueError: ids differ.
    """
    done, counts = pairs(asked, answers)
    rows = ((one.image, terms(text, frozenset(one.truth["objects"]), known)) for one, _, text in done)
    return Tally.of(rows, METRICS, counts=counts)


def terms(text: str, truth: frozenset[str], known: Reader) -> dict[str, Term]:
    """What one caption adds. Length is in words, split at white space; the original has none."""
    found = chair.terms(known.judge(text, truth), len(text.split()))
    return {"chair_i": found["chair_i"], "chair_s": found["chair_s"], "recall": found["cover"],
            "mean_length": found["mean_length"]}  # fmt: skip
