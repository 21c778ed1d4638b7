"""Ask a model about the candidates of every prompt. What it says is stored; ``score`` makes values of it."""

from __future__ import annotations

import collections
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.base import columns, seeds
from pipeline.base.tables import VERDICTS, error_status, stage_table
from pipeline.engines.protocol import MOST_LOGPROBS, TRANSIENT, Engine, Request, Response, Sampling
from pipeline.running.stage import WorkerSpec
from pipeline.sampling.config import Sample
from pipeline.sampling.requests import UNREADABLE, Failure, Requests, failure, pictures, unreadable
from pipeline.sampling.stage import identity_options, worker
from reward.asking.protocol import Answer, Asker, Question, Verdict

_SOURCE = ("id", "images", "prompt", "facts")

Talk = Generator[list[Question], list[Answer], list[Verdict]]


@dataclass(frozen=True)
class AskStage:
    """``spec`` is the model, asked as ``SampleStage`` would; ``asker`` says what to ask and what an answer means.

    All prompts of a shard are asked at once, round by round, so that the engine's batches are full. Within a prompt a
    question is asked once, however often it comes up. An engine's error is the error of a verdict; a row all of whose
    verdicts failed is a failed row, which keeps them. A later run asks about a shard again in which the engine did not
    get to answer a question. ``dispensable``: nobody weighs the scores.
    """

    spec: Sample
    asker: Asker
    seed: int
    dispensable: bool = False

    version = 1
    inputs = ("source", "sample")
    schema = VERDICTS

    @property
    def name(self) -> str:
        return f"ask-{self.asker.name}"

    @property
    def worker(self) -> WorkerSpec:
        return worker(self.spec)

    @property
    def scored_as(self) -> str:
        """The version of the scores that are made of the answers: of the asker, and of the model."""
        return f"{self.asker.version}:{identity_options(self.spec, self.seed)['model_identity']}"

    def options(self) -> dict[str, Any]:
        return {**identity_options(self.spec, self.seed), self.asker.name: self.asker.version}

    def process(self, model: Engine, tables: Mapping[str, pa.Table]) -> pa.Table:
        ids = tables["sample"]["id"].to_pylist()
        rows, problems = candidate_rows(tables["source"], tables["sample"])
        talks = {row_id: _Talk(self.asker.ask(row)) for row_id, row in rows.items()}
        while waiting := {row_id: talk.questions for row_id, talk in talks.items() if talk.questions is not None}:
            answers = self._answers(model, rows, waiting, {row_id: talks[row_id].asked for row_id in waiting})
            for row_id, questions in waiting.items():
                talks[row_id].hear([answers[row_id, question] for question in questions])
        made = [_row(row_id, talks.get(row_id), problems.get(row_id)) for row_id in ids]
        return stage_table(made, VERDICTS)

    def extras(self, table: pa.Table) -> dict[str, int]:
        total: collections.Counter[str] = collections.Counter()
        for verdicts in table["verdicts"].to_pylist():
            total.update(self.asker.counts(read_verdicts(verdicts)))
        return dict(total)

    def is_unfinished(self, table: pa.Table) -> bool:
        errors = columns.items(table["verdicts"], "error").drop_null().unique().to_pylist()
        return not TRANSIENT.isdisjoint(error.partition(": ")[0] for error in errors)

    def _answers(
        self,
        model: Engine,
        rows: Mapping[str, Mapping[str, Any]],
        waiting: Mapping[str, Sequence[Question]],
        starts: Mapping[str, int],
    ) -> dict[tuple[str, Question], Answer]:
        """``starts``: how many questions each row had before."""
        requests: Requests[tuple[str, Question]] = Requests()
        for row_id, questions in waiting.items():
            for number, question in enumerate(dict.fromkeys(questions), start=starts[row_id]):
                requests.add(
                    (row_id, question), self._request(rows[row_id], question, number), self._sampling(question)
                )
        return {subject: _answer(response) for subject, _, _, response in requests.responses(model)}

    def _request(self, row: Mapping[str, Any], question: Question, number: int) -> Request:
        # Apart from the seeds by which the same model may have sampled the candidates.
        asker = f"{row['id']}#{self.asker.name}"
        seed = seeds.derive(self.seed, asker, self.spec.model, number)
        system = (("system", self.spec.system_prompt),) if self.spec.system_prompt is not None else ()
        images = tuple(row["images"]) if question.images else ()
        return Request(f"{asker}#{number}", images, (*system, ("user", question.text)), seed)

    def _sampling(self, question: Question) -> Sampling:
        (temperature,) = self.spec.temperatures
        top = MOST_LOGPROBS if question.yes_or_no else 0
        return Sampling(1, temperature, max_tokens=question.max_tokens, top_logprobs=top)


class _Talk:
    """The state of one row: ``questions`` wait for their answers, or ``verdicts`` are there, or the asker has a
    ``problem`` with the row. ``asked`` counts the questions of earlier rounds."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self.asked = 0
        self.questions: list[Question] | None = None
        self.verdicts: list[Verdict] = []
        self.problem: Failure | None = None
        self._go_on(None)

    def hear(self, answers: list[Answer]) -> None:
        self.asked += len(answers)
        self._go_on(answers)

    def _go_on(self, answers: list[Answer] | None) -> None:
        self.questions = None
        try:
            self.questions = next(self._talk) if answers is None else self._talk.send(answers)
        except StopIteration as end:
            self.verdicts = end.value
        except Exception as error:  # as in ``score``: one row's, and no reason to lose the others
            self.problem = (type(error).__name__, str(error))


def read_verdicts(column: Iterable[Mapping[str, Any]] | None) -> list[Verdict]:
    """The verdicts of a row; none of a null."""
    return [Verdict(**verdict) for verdict in column or ()]


def candidate_rows(source: pa.Table, sample: pa.Table) -> tuple[dict[str, dict[str, Any]], dict[str, Failure]]:
    """The rows that can be asked about, as ``reward.scorers.protocol.Row``, and what is wrong with the others."""
    prompts = columns.align(source.select(_SOURCE), columns.whole(sample["id"])).to_pylist()
    rows: dict[str, dict[str, Any]] = {}
    problems: dict[str, Failure] = {}
    for prompt, sampled in zip(prompts, sample.to_pylist(), strict=True):
        row_id = sampled["id"]
        if sampled["status"] != "ok":
            problems[row_id] = (sampled["error_type"], sampled["error"])
            continue
        try:
            images = list(pictures(prompt["images"]))
        except UNREADABLE as error:
            problems[row_id] = unreadable(error)
        else:
            rows[row_id] = {**prompt, "images": images, "candidates": sampled["candidates"]}
    return rows, problems


def _answer(response: Response) -> Answer:
    if (why := failure(response)) is not None:
        return Answer(error=": ".join(why))
    (completion,) = response.completions
    return Answer(completion.text, completion.finish_reason == "stop", completion.first)


def _row(row_id: str, talk: _Talk | None, problem: Failure | None) -> dict[str, Any]:
    problem = problem or (talk.problem if talk is not None else None)
    if talk is None or problem is not None:
        return {"id": row_id, **error_status(*(problem or ("unknown", "")))}
    errors = [verdict.error for verdict in talk.verdicts if verdict.error is not None]
    status: dict[str, Any] = {"status": "ok"}
    if errors and len(errors) == len(talk.verdicts):
        kind, _, message = errors[0].partition(": ")
        status = error_status(kind, f"every verdict failed, the first one with: {message}")
    verdicts = [
        {name: getattr(verdict, name) for name in ("candidate", "other", "question", "answer", "p_yes", "error")}
        for verdict in talk.verdicts
    ]
    return {"id": row_id, "verdicts": verdicts, **status}
