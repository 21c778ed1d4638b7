"""What a judge says of answers: asked through the same stages as the answers, or read from a file."""

from __future__ import annotations

import json
from collections.abc import Container, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.base.files import read_text, write_text
from pipeline.base.model_names import digest
from pipeline.running.executor import Executor
from pipeline.running.store import Run
from pipeline.sampling.config import Sample
from reward.text.reasoning import without_reasoning
from training.errors import DataError
from training.evaluation import benchmark_files
from training.evaluation.question import Answer
from training.evaluation.session.generate import JUDGEMENTS, ImagePrompt, generate, identify
from training.evaluation.suite import Suite

#: (suite, id of a question)
Place = tuple[str, str]
#: Beside the results: what a judge is to read, for one that is asked elsewhere.
TO_JUDGE = "to_judge.jsonl"
#: Beside it: which judgement was used for which answer, as digests.
JUDGED = "judged.json"


def to_judge(suites: Iterable[Suite], answers: Mapping[Place, Answer]) -> dict[Place, ImagePrompt]:
    """What a judge is asked about every answer that needs a judgement."""
    prompts = {}
    for suite in suites:
        for question in suite.questions if suite.judge_prompt is not None else ():
            text = answers[suite.name, question.id].text
            if text is None or suite.judge_prompt is None:
                continue
            asking = suite.judge_prompt(question, without_reasoning(text))
            if asking is not None:
                prompts[suite.name, question.id] = ImagePrompt(asking)
    return prompts


def by_model(
    run: Run, executor: Executor, asking: Mapping[Place, ImagePrompt], spec: Sample, seed: int = 0
) -> dict[Place, str]:
    """The judge's answers.

    Raises:
        PipelineError: the judge cannot be opened, or did not answer all: suites score nothing without a judgement.
        DataError: a judgement ends within the judge's reasoning.
    """
    judgements = generate(run, executor, asking, identify(asking), spec, seed, JUDGEMENTS, max_failure_rate=0.0)
    said = {place: answer.text for place, answer in judgements.items() if answer.text is not None}
    cut = [place for place, text in said.items() if text.strip() and not without_reasoning(text)]
    if cut:
        # To some suites a judgement that cannot be read is the worst.
        raise DataError(
            f"{len(cut)} of {len(said)} judgements of {spec.model} end within its reasoning ({spec.max_tokens} "
            f"tokens), the first is of id {cut[0][1]!r} of {cut[0][0]}; turn its reasoning off, or take another judge"
        )
    return said


def by_file(
    path: Path,
    asking: Mapping[Place, ImagePrompt],
    answers: Mapping[Place, Answer],
    beside: Path,
    graded: Container[str] = (),
) -> dict[Place, str]:
    """Saved judgements: ``{"suite", "id", "judgement"}`` a line. ``suite`` may be left out where one suite is judged,
    and where a line has the ``answer`` that was judged, it must be the one that is here. A judgement that is null or
    blank is none; one that is given twice must be the same. ``graded`` are the suites where it may be a bare number.

    What is to be judged is written to ``TO_JUDGE`` in the folder ``beside``: ``{"suite", "id", "answer", "prompt"}``.

    Which answer a judgement without ``answer`` was given for is kept in ``JUDGED``: the model may have been trained
    again since.

    Raises:
        DataError: an answer has no judgement, two that differ, one of another text, or one that is no text.
    """
    lines = [
        {"suite": suite, "id": id, "answer": answers[suite, id].text, "prompt": asking[suite, id].text}
        for suite, id in asking
    ]
    write_text(beside / TO_JUDGE, "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines))
    suites = list(dict.fromkeys(suite for suite, _ in asking))
    judgements: dict[Place, str] = {}
    used = _known(beside / JUDGED)
    for number, row in benchmark_files.lines(path) if path.is_file() else ():
        where = f"{path}, line {number}"
        id, judgement = benchmark_files.take(row, ("id", "judgement"), where)
        if "suite" not in row and len(suites) > 1:
            raise DataError(f"{where}: key 'suite' is missing; {' and '.join(suites)} are judged, so say which")
        place = (str(row.get("suite", *suites[:1])), str(id))
        if place not in asking:
            continue
        if row.get("answer", answers[place].text) != answers[place].text:
            raise DataError(f"{where}: the judged answer is not the one that is stored; judge those of {TO_JUDGE}")
        said = _said(judgement, place[0] in graded, where)
        if said is None:
            continue
        if judgements.setdefault(place, said) != said:
            raise DataError(
                f"{where}: id {place[1]!r} of {place[0]} has another judgement in an earlier line; keep one"
            )
        of = [digest(judgements[place]), digest(str(answers[place].text))]
        earlier = used.setdefault("\0".join(place), of)
        if "answer" not in row and earlier[0] == of[0] and earlier[1] != of[1]:
            raise DataError(
                f"{where}: this judgement was used for another answer than the one that is stored now; judge those of "
                f"{TO_JUDGE}, and give each line its answer"
            )
        used["\0".join(place)] = of
    lost = [place for place in asking if place not in judgements]
    if lost:
        raise DataError(
            f"{len(lost)} of {len(asking)} answers have no judgement in {path}, the first is id {lost[0][1]!r} of "
            f"{lost[0][0]}; have a judge answer the prompts in {beside / TO_JUDGE}, add its words to the file, and run "
            "this again"
        )
    write_text(beside / JUDGED, json.dumps(used) + "\n")
    return judgements


def _said(judgement: Any, graded: bool, where: str) -> str | None:
    """The text of a judgement; None where a judge that failed has left null or nothing, or reasoning alone.

    >>> _said("Rating: 4", False, "x"), _said(" ", False, "x"), _said(0.5, True, "x")
    ('Rating: 4', None, '0.5')

    Raises:
        DataError: it is neither text nor, where it may be, a number.
    """
    if judgement is None or (isinstance(judgement, str) and not without_reasoning(judgement).strip()):
        return None
    if isinstance(judgement, str):
        return judgement
    if graded and isinstance(judgement, int | float) and not isinstance(judgement, bool):
        return str(judgement)
    # A bare number would be read as a judgement without a rating, which is one of 0.
    what = "a text or a number" if graded else "a text"
    raise DataError(f"{where}: 'judgement' is {judgement!r:.80}, not {what}; give what the judge wrote, word for word")


def _known(path: Path) -> dict[str, list[str]]:
    """By the place, the digests of the judgement and of the answer that it was used for."""
    text = read_text(path)
    try:
        digests: dict[str, list[str]] = json.loads(text) if text is not None else {}
    except ValueError:
        return {}
    return digests


def with_judgements(answers: Mapping[Place, Answer], judgements: Mapping[Place, str]) -> dict[Place, Answer]:
    return {place: replace(answer, judgement=judgements.get(place)) for place, answer in answers.items()}
