"""Object HalBench: 300 COCO images, each with a paraphrase of "describe this image in detail".

Layout: ``questions.jsonl`` with ``{"image_id", "question"}`` a line, ``instances_*.json``, ``captions_*.json``, and
``synonyms_refine.txt`` (RLAIF-V, ``eval/data``) unless another list is named.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from training.errors import DataError
from training.evaluation import coco, files, halbench
from training.evaluation.asked import Answered, Asked, pairs
from training.evaluation.tally import Tally
from training.evaluation.words.coco_words import Words

VERSION = "2"
SYNONYMS = "synonyms_refine.txt"


def questions(data: Path, known: Words) -> list[Asked]:
    """
    Raises:
        DataError: a file is missing or malformed, or an image is not annotated.
    """
    path = data / "questions.jsonl"
    rows = [
        (number, *files.take(row, ("image_id", "question"), f"{path}, line {number}"))
        for number, row in files.lines(path)
    ]
    annotated = coco.instances(coco.paths(data, "instances"))
    lost = [(number, id) for number, id, _ in rows if int(id) not in annotated]
    if lost:
        raise DataError(
            f"{path}, line {lost[0][0]}: image {lost[0][1]} is not in {data}/instances_*.json; add its file"
        )
    said = coco.captions(coco.paths(data, "captions"), frozenset(int(id) for _, id, _ in rows))
    truths = {int(id): sorted(known.truth(annotated[int(id)].categories, said.get(int(id), ()))) for _, id, _ in rows}
    return [
        Asked(str(number), annotated[int(id)].file, str(question), {"objects": truths[int(id)]})
        for number, id, question in rows
    ]


def judge_prompt(asked: Asked, text: str) -> str | None:
    """What to ask a judge about an answer; None for one that is too short to name anything."""
    answer = halbench.said(text)
    return None if halbench.is_short(answer) else halbench.prompt(answer)


def score(
    asked: Sequence[Asked],
    answers: Mapping[str, Answered],
    known: Words,
    phrases: halbench.Phrases | None = None,
) -> Tally:
    """``halbench.METRICS`` by what a judge listed, or, without ``phrases``, by every word of the answer.

    Answers of up to three words name nothing and need no judgement. ``unparseable`` counts judgements without a list;
    those answers are left out, where the original asks its judge again.

    Raises:
        ValueError: ids differ, or an answer has no judgement.
    """
    done, counts = pairs(asked, answers)
    counts["unparseable"] = 0
    rows = []
    for one, answered, whole in done:
        text = halbench.said(whole)
        truth = frozenset(one.truth["objects"])
        if phrases is None:
            found = known.judge(text, truth)
        else:
            objects = [] if halbench.is_short(text) else halbench.listed(_judgement(one, answered))
            if objects is None:
                counts["unparseable"] += 1
                continue
            found = halbench.judge(objects, truth, known, phrases)
        rows.append((one.image, halbench.terms(found, text)))
    return Tally.of(rows, halbench.METRICS, counts=counts)


def _judgement(one: Asked, answered: Answered) -> str:
    if answered.judgement is None:
        raise ValueError(f"id {one.id!r} has no judgement; have a judge list the objects, or score without phrases")
    return answered.judgement
