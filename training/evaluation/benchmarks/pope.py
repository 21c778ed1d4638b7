"""POPE (Li et al. 2023): "is there a ... in the image?", half of it about objects that are not there.

Official files: ``coco_pope_random.json``, ``coco_pope_popular.json``, ``coco_pope_adversarial.json``, one
``{"question_id", "image", "text", "label"}`` a line. Texts are asked as they are, "imange" included: 57 of the 9,000
official questions are spelled so.

Questions about other images are built as POPE's ``main.py`` builds them, save that ties in frequency go by name and
random draws are seeded by the image's own objects, so that neither depends on the order of the images. Positive class
is "yes".
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from reward.text.yes_no import PARSERS, Parser
from training.errors import DataError
from training.evaluation import benchmark_files
from training.evaluation.benchmark import Benchmark
from training.evaluation.places import COCO_IMAGES, Files
from training.evaluation.question import Answer, Question, pairs
from training.evaluation.ratio import Term
from training.evaluation.tally import Linear, Tally, mean_of

SPLITS = ("random", "popular", "adversarial")
METRICS = ("accuracy", "precision", "recall", "f1", "yes_ratio")
#: The average over splits is not defined by POPE; here it is the mean over the splits that were asked.
AVERAGED = (*METRICS, "unparseable_rate")
#: Parsers whose harness counts an answer that is neither yes nor no as "not yes" in precision, recall and F1. The
#: others leave it out of these; in accuracy it is wrong for all.
UNPARSEABLE_IS_NOT_YES = frozenset({"vlmevalkit"})


@dataclass(frozen=True)
class Pope(Benchmark):
    """POPE from its official files.

    Args:
        parser: how yes and no are read.
        suffix: stands behind every question; the official ones have none.
    """

    parser: Parser = "official"
    suffix: str = ""
    name: ClassVar[str] = "pope"
    version: ClassVar[str] = "1"
    title: ClassVar[str] = "POPE, official files"
    files: ClassVar[tuple[str, ...]] = ("coco_pope_*.json",)
    given_out: ClassVar[Files] = Files(
        marks=("coco_pope_*.json",), source="github.com/AoiDragon/POPE (output/coco)", places=("POPE/output/coco",)
    )
    image_places: ClassVar[tuple[str, ...]] = COCO_IMAGES
    headline: ClassVar[tuple[str, ...]] = (*METRICS, *(f"{split}_f1" for split in SPLITS), "unparseable_rate")

    def questions(self, data: Path) -> list[Question]:
        """A question that is in several splits is asked once. One that a file holds twice counts twice, as it does
        there.

        Raises:
            DataError: a file is missing or malformed, or one question has two answers.
        """
        splits: dict[tuple[str, str], list[str]] = {}
        labels: dict[tuple[str, str], str] = {}
        for split in SPLITS:
            path = data / f"coco_pope_{split}.json"
            for number, row in benchmark_files.lines(path):
                where = f"{path}, line {number}"
                image, text, label = benchmark_files.take(row, ("image", "text", "label"), where)
                if label not in ("yes", "no"):
                    raise DataError(f"{where}: label {label!r} is neither 'yes' nor 'no'; give the official file")
                key = (str(image), str(text))
                if labels.setdefault(key, label) != label:
                    raise DataError(f"{where}: {text!r} about {image} has both answers; give the official files")
                splits.setdefault(key, []).append(split)
        return [question(image, text, labels[image, text], of, self.suffix) for (image, text), of in splits.items()]

    def score(self, questions: Sequence[Question], answers: Mapping[str, Answer]) -> Tally:
        """``SPLIT_METRIC`` for each split that was asked, and ``METRIC``, the mean over those splits.

        Raises:
            ValueError: ids differ.
        """
        there = [split for split in SPLITS if any(split in entry.truth["splits"] for entry in questions)]
        done, counts = pairs(questions, answers)
        rows = []
        for entry, _, text in done:
            answer = PARSERS[self.parser](text)
            added = terms(entry.truth["answer"], answer, self.parser in UNPARSEABLE_IS_NOT_YES)
            added["unparseable_rate"] = (float(answer is None), 1)
            for split in entry.truth["splits"]:
                rows.append((entry.image, {f"{split}_{name}": term for name, term in added.items()}))
        linear: dict[str, Linear] = {}
        if there:
            linear = {name: mean_of([f"{split}_{name}" for split in there]) for name in AVERAGED}
        return Tally.of(rows, [f"{split}_{name}" for split in there for name in AVERAGED], linear, counts)


def question(image: str, text: str, answer: str, splits: Sequence[str], suffix: str = "") -> Question:
    return Question(f"{image}:{text}", image, text + suffix, {"answer": answer, "splits": list(splits)})


def terms(truth: str, answer: str | None, unparseable_is_not_yes: bool = False) -> dict[str, Term]:
    """What one answer adds to each metric; ``answer`` is "yes", "no" or None if neither can be read."""
    hit = answer == "yes" and truth == "yes"
    false_alarm = answer == "yes" and truth == "no"
    miss = truth == "yes" and (answer == "no" or (answer is None and unparseable_is_not_yes))
    return {
        "accuracy": (float(answer == truth), 1),
        "precision": (float(hit), float(hit or false_alarm)),
        "recall": (float(hit), float(hit or miss)),
        "f1": (2.0 * hit, 2.0 * hit + false_alarm + miss),
        "yes_ratio": (float(answer == "yes"), 1),
    }


@dataclass(frozen=True, slots=True)
class ObjectQuestion:
    """``image`` is the position in the list given to ``build``; ``splits`` are the splits this question belongs to."""

    image: int
    object: str
    text: str
    answer: Literal["yes", "no"]
    splits: tuple[str, ...]


def a_or_an(name: str) -> str:
    """The article by spelling, as POPE means it. (Its script replaces every "a", so that its files say "imange".)

    >>> a_or_an("umbrella"), a_or_an("sun")
    ('an', 'a')
    """
    return "an" if name[:1].lower() in set("aeiou") else "a"


def build(
    objects_per_image: Sequence[Sequence[str]],
    per_image: int = 3,
    seed: int = 0,
    question: str = "Is there {article} {object} in the image?",
    article: Callable[[str], str] = a_or_an,
) -> list[ObjectQuestion]:
    """The distinct questions of all three splits, grouped by image.

    Positives are the image's first ``per_image`` objects, the same in every split and asked once. For each of them a
    split asks about one object that is not in the image and not yet asked about in that split:

    - random: uniform over all objects that occur in any image;
    - popular: the one that occurs in most images;
    - adversarial: the one that occurs together with the current positive in most images; once none of the objects
      that ever do is left, random.

    An image with fewer than ``per_image`` objects, or with fewer absent ones, gives fewer questions, always as many
    positive as negative. (POPE itself takes only images with at least three objects: ``about``.)

    >>> [(q.object, q.answer, q.splits) for q in build([["sun"], ["cup"]])][:2]
    [('sun', 'yes', ('random', 'popular', 'adversarial')), ('cup', 'no', ('random', 'popular', 'adversarial'))]
    """
    images = [list(dict.fromkeys(objects)) for objects in objects_per_image]
    frequency = Counter(name for objects in images for name in objects)
    together: dict[str, Counter[str]] = {name: Counter() for name in frequency}
    for objects in images:
        for name in objects:
            together[name].update(other for other in objects if other != name)
    by_frequency = _descending(frequency)
    by_company = {name: _descending(counts) for name, counts in together.items()}
    seen: Counter[tuple[str, ...]] = Counter()
    questions: list[ObjectQuestion] = []
    for index, objects in enumerate(images):
        absent = sorted(set(frequency) - set(objects))
        positives = objects[: min(per_image, len(absent))]
        rng = random.Random(f"pope:{seed}:{objects}:{seen[tuple(objects)]}")
        seen[tuple(objects)] += 1
        negatives = {
            "random": _negatives(positives, lambda _: [], absent, rng),
            "popular": _negatives(positives, lambda _: by_frequency, absent, rng),
            "adversarial": _negatives(positives, by_company.__getitem__, absent, rng),
        }
        splits_of = dict.fromkeys(positives, SPLITS)
        for split in SPLITS:
            for name in negatives[split]:
                splits_of[name] = (*splits_of.get(name, ()), split)
        for name, splits in splits_of.items():
            text = question.format(article=article(name), object=name)
            questions.append(ObjectQuestion(index, name, text, "yes" if name in objects else "no", splits))
    return questions


def about(
    objects: Mapping[str, Sequence[str]], images: int | None = 500, per_image: int = 3, seed: int = 0, suffix: str = ""
) -> list[Question]:
    """Questions about annotated images (file name -> objects in it), by POPE's recipe.

    Of the images with at least ``per_image`` distinct objects, ``images`` are drawn (all, if None), and negatives come
    from the objects of those. The order of ``objects`` does not matter, that of an image's own list does: its first
    ``per_image`` are asked about.

    Raises:
        DataError: fewer images than asked for have so many objects.
    """
    eligible = sorted(name for name, of in objects.items() if len(set(of)) >= per_image)
    if images is not None:
        if len(eligible) < images:
            raise DataError(
                f"images={images}, but only {len(eligible)} of {len(objects)} have at least {per_image} distinct "
                "objects; ask for fewer images, or annotate more"
            )
        eligible = sorted(random.Random(f"pope:images:{seed}").sample(eligible, images))
    built = build([objects[name] for name in eligible], per_image, seed)
    return [question(eligible[item.image], item.text, item.answer, item.splits, suffix) for item in built]


def read_objects(path: Path) -> dict[str, list[str]]:
    """Annotated images in POPE's layout: ``{"image": FILE, "objects": [NAME, ...]}`` a line.

    Raises:
        DataError: the file is missing or malformed, or has an image twice.
    """
    objects_of: dict[str, list[str]] = {}
    for number, row in benchmark_files.lines(path):
        image, objects = benchmark_files.take(row, ("image", "objects"), f"{path}, line {number}")
        if not isinstance(objects, list):
            raise DataError(f"{path}, line {number}: 'objects' is no list; give the names of the objects")
        if str(image) in objects_of:
            raise DataError(f"{path}, line {number}: {image} is there twice; give all its objects in one line")
        objects_of[str(image)] = [str(name) for name in objects]
    return objects_of


def _negatives(
    positives: Sequence[str], order: Callable[[str], Sequence[str]], absent: Sequence[str], rng: random.Random
) -> list[str]:
    chosen: list[str] = []
    for positive in positives:
        free = [name for name in absent if name not in chosen]
        preferred = next((name for name in order(positive) if name in free), None)
        chosen.append(preferred if preferred is not None else rng.choice(free))
    return chosen


def _descending(counts: Counter[str]) -> list[str]:
    return sorted(counts, key=lambda name: (-counts[name], name))
