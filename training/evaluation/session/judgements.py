"""What a judge says of answers: asked through the same stages as the answers, or read from a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from pipeline.base.files import read_text, write_text
from pipeline.base.model_names import digest
from pipeline.running.executor import Executor
from pipeline.running.store import Run
from pipeline.sampling.config import Sample
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
            asking = None if text is None or suite.judge_prompt is None else suite.judge_prompt(question, text)
            if asking is not None:
                prompts[suite.name, question.id] = ImagePrompt(asking)
    return prompts


def by_model(
    run: Run, executor: Executor, asking: Mapping[Place, ImagePrompt], spec: Sample, seed: int = 0
) -> dict[Place, str]:
    """The judge's answers.

    Raises:
        PipelineError: the judge cannot be opened, or did not answer all: suites score nothing without a judgement.
    """
    judgements = generate(run, executor, asking, identify(asking), spec, seed, JUDGEMENTS, max_failure_rate=0.0)
    return {place: answer.text for place, answer in judgements.items() if answer.text is not None}


def by_file(
    path: Path, asking: Mapping[Place, ImagePrompt], answers: Mapping[Place, Answer], beside: Path
) -> dict[Place, str]:
    """Saved judgements: ``{"suite", "id", "judgement"}`` a line. ``suite`` may be left out where one suite is judged,
    and where a line has the ``answer`` that was judged, it must be the one that is here.

    What is to be judged is written to ``TO_JUDGE`` in the folder ``beside``: ``{"suite", "id", "answer", "prompt"}``.

    Which answer a judgement without ``answer`` was given for is kept in ``JUDGED``: the model may have been trained
    again since.

    Raises:
        DataError: an answer has no judgement, or one of another text.
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
        judgements[place] = str(judgement)
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
