"""MMHal-Bench from its ``response_template.json``, in the order of that file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from training.errors import DataError
from training.evaluation import files, mmhal
from training.evaluation.asked import Answered, Asked, pairs
from training.evaluation.tally import Tally

VERSION = "1"
METRICS = ("score", "hallucination_rate", "informativeness", "unparseable_rate")


def questions(data: Path) -> list[Asked]:
    """The truth holds what a judge is to read: ``image_content``, ``gt_answer`` and the place, which is the type.

    Raises:
        DataError: the file is missing or malformed.
    """
    path = data / "response_template.json"
    rows = files.whole(path)
    if not isinstance(rows, list):
        raise DataError(f"{path} is no list; give the official file")
    asked = []
    for place, row in enumerate(rows):
        keys = ("image_src", "question", "image_content", "gt_answer")
        source, question, content, right = files.take(row, keys, f"{path}, item {place + 1}")
        truth = {"place": place, "question": question, "image_content": content, "gt_answer": right}
        asked.append(Asked(str(place), str(source).rstrip("/").split("/")[-1], str(question), truth))
    return asked


def judge_prompt(asked: Asked, text: str) -> str:
    """What to ask a judge about an answer."""
    known = asked.truth
    return mmhal.prompt(known["image_content"], known["question"], known["gt_answer"], text)


def score(asked: Sequence[Asked], answers: Mapping[str, Answered]) -> Tally:
    """``METRICS`` and the mean rating of each type.

    Raises:
        ValueError: ids differ, or an answer has no judgement.
    """
    done, counts = pairs(asked, answers)
    rows = []
    for one, answered, _ in done:
        if answered.judgement is None:
            raise ValueError(f"id {one.id!r} has no judgement; have a judge rate every answer first")
        rows.append((one.image, mmhal.terms(answered.judgement, one.truth["place"])))
    return Tally.of(rows, [*METRICS, *(f"score_{name}" for name in mmhal.TYPES)], counts=counts)
