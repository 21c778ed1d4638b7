"""CHAIR (Rohrbach et al. 2018) with recall and length, without which it rewards saying nothing.

============  ======================================================================================================
chair_i       hallucinated mentions / all mentions, pooled over captions, repeats counted
chair_s       captions with at least one hallucinated mention / all captions
cover         true objects named / true objects, pooled over captions: "Cover" as AMBER's code computes it, "recall"
              among the metrics of the benchmark
cover_per_image   the same ratio per caption, then averaged: "Cover" as AMBER's paper defines it
mean_length   words (split at white space) per caption; the original has none
============  ======================================================================================================

A ratio without a denominator is None: a model that names no object has no chair_i, rather than a perfect one.

Files: COCO's ``instances_*.json`` and ``captions_*.json`` (the original takes those of train2014 and val2014), and
``synonyms.txt`` unless another list is named.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Protocol

from reward.scorers.objects import ObjectVerdict
from training.errors import DataError
from training.evaluation import coco_annotations as coco
from training.evaluation import image_list
from training.evaluation.benchmark import Benchmark, Opened
from training.evaluation.image_list import Entry, ImageList
from training.evaluation.places import COCO_ANNOTATIONS, COCO_IMAGES, RLAIF_V, Files
from training.evaluation.question import Answer, Question, pairs
from training.evaluation.ratio import Term
from training.evaluation.tally import Tally
from training.evaluation.words import coco_words
from training.evaluation.words.coco_words import Variant, Words

METRICS = ("chair_i", "chair_s", "cover", "cover_per_image", "mean_length")
_REMEDY = "give --synonyms FILE, or --variant coco80, whose numbers are not comparable with published ones"
SYNONYMS = Files(
    marks=("synonyms.txt",),
    source="github.com/LisaAnne/Hallucination (data)",
    places=("Hallucination/data",),
    remedy=_REMEDY,
    single=True,
)
REFINED_SYNONYMS = Files(
    marks=("synonyms_refine.txt",),
    source="github.com/RLHF-V/RLAIF-V (eval/data)",
    places=RLAIF_V,
    own=SYNONYMS.marks,
    remedy=_REMEDY,
    single=True,
)


class Reader(Protocol):
    """What finds the objects in a caption, such as ``coco_words.Words``."""

    def judge(self, text: str, truth: frozenset[str]) -> ObjectVerdict: ...


@dataclass(frozen=True)
class Chair(Benchmark):
    """CHAIR on COCO images.

    Args:
        variant: which words are found, and how (``coco_words``).
        synonyms: the list of words; ``synonyms.txt`` of the folder if left out.
        prompt: asks for a description.
        limit: so many images, drawn by ``seed`` from ``instances_val*.json``; all, if None.
        ids: the images, in place of those drawn.
    """

    variant: Variant = "standalone"
    synonyms: Path | None = None
    prompt: str = "Please describe this image in detail."
    limit: int | None = 500
    seed: int = 0
    ids: tuple[Entry, ...] | ImageList | None = None
    name: ClassVar[str] = "chair"
    version: ClassVar[str] = "2"
    title: ClassVar[str] = "COCO"
    files: ClassVar[tuple[str, ...]] = ("instances_*.json", "captions_*.json")
    given_out: ClassVar[Files] = COCO_ANNOTATIONS
    image_places: ClassVar[tuple[str, ...]] = COCO_IMAGES
    headline: ClassVar[tuple[str, ...]] = ("chair_s", "chair_i", "recall", "mean_length")
    units: ClassVar[Mapping[str, str]] = {"mean_length": "words"}
    lower: ClassVar[frozenset[str]] = frozenset({"chair_s", "chair_i"})

    def parts(self) -> Mapping[str, Files]:
        if self.variant == "coco80":
            return {}
        return {"synonyms": REFINED_SYNONYMS if self.variant == "object_halbench" else SYNONYMS}

    def open(self, data: Path) -> Opened:
        words = self.words(data)
        versions = {"vocabulary": words.version, "lemmatiser": coco_words.lemmatiser_version(self.variant)}
        files = [*coco.paths(data, "instances"), *coco.paths(data, "captions")]
        return Opened(self._questions(data, words), partial(score, reader=words), versions, files=files)

    def words(self, data: Path) -> Words:
        """The variant with the list that is named, else with ``synonyms.txt`` in ``data`` if it wants one."""
        (name,) = SYNONYMS.marks
        beside = data / name
        use = beside if self.synonyms is None and self.variant != "coco80" and beside.exists() else self.synonyms
        return coco_words.words(self.variant, use)

    def questions(self, data: Path) -> list[Question]:
        """One description per image. Its truth is its annotated categories and what its captions name, both as
        ``variant`` reads them; score with the same variant.

        Raises:
            DataError: a file is missing or malformed, an id is not annotated, or there are too few images.
        """
        return self._questions(data, self.words(data))

    def _questions(self, data: Path, words: Words) -> list[Question]:
        paths = coco.paths(data, "instances")
        if self.ids is not None:
            annotated = coco.instances(paths)
            files = {id: image.file for id, image in annotated.items()}
            chosen = image_list.of(self.ids).among(files, self.name)
        else:
            annotated = coco.instances([path for path in paths if "val" in path.name] or paths)
            chosen = sorted(annotated)
            if self.limit is not None:
                if self.limit > len(chosen):
                    raise DataError(
                        f"suite chair asks about {self.limit} images, but only {len(chosen)} are annotated; ask for "
                        f"fewer with --limit {len(chosen)}"
                    )
                chosen = sorted(random.Random(f"chair:images:{self.seed}").sample(chosen, self.limit))
        truths = coco.truths(data, annotated, chosen, words)
        return [Question(str(id), annotated[id].file, self.prompt, {"objects": truths[id]}) for id in chosen]


def score(questions: Sequence[Question], answers: Mapping[str, Answer], reader: Reader) -> Tally:
    """Every caption counts, and an image that is described twice counts twice, as in the original.

    Raises:
        ValueError: ids differ.
    """
    names = {"chair_i": "chair_i", "chair_s": "chair_s", "cover": "recall", "mean_length": "mean_length"}
    return count(questions, answers, reader).picked(names)


def count(questions: Sequence[Question], answers: Mapping[str, Answer], reader: Reader) -> Tally:
    """All ``METRICS``.

    Raises:
        ValueError: ids differ.
    """
    done, counts = pairs(questions, answers)
    rows = (
        (question.image, terms(reader.judge(text, frozenset(question.truth["objects"])), len(text.split())))
        for question, _, text in done
    )
    return Tally.of(rows, METRICS, counts=counts)


def terms(verdict: ObjectVerdict, words: int) -> dict[str, Term]:
    """What one caption adds to each metric."""
    return {
        "chair_i": (len(verdict.hallucinated), len(verdict.mentions)),
        "chair_s": (float(bool(verdict.hallucinated)), 1),
        "cover": (len(verdict.covered), len(verdict.truth)),
        "cover_per_image": (verdict.recall or 0.0, float(bool(verdict.truth))),
        "mean_length": (words, 1),
    }
