"""POPE from its official files, or built from annotated images.

Official layout: ``coco_pope_random.json``, ``coco_pope_popular.json``, ``coco_pope_adversarial.json``, one
``{"question_id", "image", "text", "label"}`` a line. Texts are asked as they are, "imange" included: 57 of the 9,000
official questions are spelled so.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from reward.text.yes_no import PARSERS
from training.errors import DataError
from training.evaluation import files, pope
from training.evaluation.asked import Answered, Asked, pairs
from training.evaluation.tally import Linear, Tally, mean_of

VERSION = "1"
#: The average over splits is not defined by POPE; here it is the mean over the splits that were asked.
AVERAGED = (*pope.METRICS, "unparseable_rate")


def questions(data: Path, suffix: str = "") -> list[Asked]:
    """The questions of the official files in ``data``, with ``suffix`` behind each text (the official has none).

    A question that is in several splits is asked once. One that a file holds twice counts twice, as it does there.

    Raises:
        DataError: a file is missing or malformed, or one question has two answers.
    """
    splits: dict[tuple[str, str], list[str]] = {}
    labels: dict[tuple[str, str], str] = {}
    for split in pope.SPLITS:
        path = data / f"coco_pope_{split}.json"
        for number, row in files.lines(path):
            where = f"{path}, line {number}"
            image, text, label = files.take(row, ("image", "text", "label"), where)
            if label not in ("yes", "no"):
                raise DataError(f"{where}: label {label!r} is neither 'yes' nor 'no'; give the official file")
            key = (str(image), str(text))
            if labels.setdefault(key, label) != label:
                raise DataError(f"{where}: {text!r} about {image} has both answers; give the official files")
            splits.setdefault(key, []).append(split)
    return [_asked(image, text, labels[image, text], of, suffix) for (image, text), of in splits.items()]


def build(
    objects: Mapping[str, Sequence[str]],
    images: int | None = 500,
    per_image: int = 3,
    seed: int = 0,
    suffix: str = "",
) -> list[Asked]:
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
                "objects; ask for fewer images, or give more"
            )
        eligible = sorted(random.Random(f"pope:images:{seed}").sample(eligible, images))
    asked = pope.build([objects[name] for name in eligible], per_image, seed)
    return [_asked(eligible[one.image], one.text, one.answer, one.splits, suffix) for one in asked]


def read_objects(path: Path) -> dict[str, list[str]]:
    """Annotated images in POPE's layout: ``{"image": FILE, "objects": [NAME, ...]}`` a line.

    Raises:
        DataError: the file is missing or malformed.
    """
    found: dict[str, list[str]] = {}
    for number, row in files.lines(path):
        image, objects = files.take(row, ("image", "objects"), f"{path}, line {number}")
        if not isinstance(objects, list):
            raise DataError(f"{path}, line {number}: 'objects' is no list; give the names of the objects")
        found[str(image)] = [str(one) for one in objects]
    return found


def score(asked: Sequence[Asked], answers: Mapping[str, Answered], parser: str = "official") -> Tally:
    """``SPLIT_METRIC`` for each split that was asked, and ``METRIC``, the mean over those splits.

    Raises:
        ValueError: ids differ, or ``parser`` is unknown.
    """
    if parser not in PARSERS:
        raise ValueError(f"parser={parser!r} is unknown; use one of {', '.join(PARSERS)}")
    there = [split for split in pope.SPLITS if any(split in one.truth["splits"] for one in asked)]
    done, counts = pairs(asked, answers)
    rows = []
    for one, _, text in done:
        said = PARSERS[parser](text)
        terms = pope.terms(one.truth["answer"], said, parser in pope.UNPARSEABLE_IS_NOT_YES)
        terms["unparseable_rate"] = (float(said is None), 1)
        rows += [
            (one.image, {f"{split}_{name}": term for name, term in terms.items()}) for split in one.truth["splits"]
        ]
    linear: dict[str, Linear] = {}
    if there:
        linear = {name: mean_of([f"{split}_{name}" for split in there]) for name in AVERAGED}
    return Tally.of(rows, [f"{split}_{name}" for split in there for name in AVERAGED], linear, counts)


def _asked(image: str, text: str, answer: str, splits: Sequence[str], suffix: str) -> Asked:
    return Asked(f"{image}:{text}", image, text + suffix, {"answer": answer, "splits": list(splits)})
