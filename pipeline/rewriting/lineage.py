"""What the stages that rewrite texts share: the texts of a prompt with what was found in them, and the table of what
was made of them.

Candidates are numbered through the tables of a row in the order in which ``GatherStage`` puts them behind each other;
``parent`` is such a number.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.base import columns
from pipeline.base.errors import PipelineError
from pipeline.base.tables import OK, REWRITTEN, error_status, stage_table
from pipeline.engines.protocol import Engine, Request, Response, Sampling
from pipeline.sampling.config import Sample
from pipeline.sampling.gather import GatherStage
from pipeline.sampling.requests import UNREADABLE, Failure, Requests, failure, pictures, unreadable
from pipeline.scoring import scorers
from reward.asking.protocol import Answer, Question
from reward.text.lexicon import Lexicon
from reward.text.types import Finding, Problem, Rewrite

DETECT = "detect"
#: Texts that may be rewritten, as far as they are whole.
ORIGINALS = frozenset({"sampled", "given"})

Candidate = dict[str, Any]
Refused = dict[str, Any]


@dataclass(frozen=True)
class Gathered(GatherStage):
    """Candidates tables as one that is not the last."""

    name: str = "sample"


@dataclass(frozen=True)
class Row:
    """A prompt with its ``texts``; ``findings`` are those of the texts that were looked through, by their numbers."""

    id: str
    images: Sequence[Mapping[str, Any]]
    facts: Mapping[str, Any] | None
    texts: Sequence[Candidate]
    findings: Mapping[int, tuple[Finding, ...]] = field(default_factory=dict)

    def originals(self) -> Iterator[tuple[int, Candidate]]:
        """The texts that may be rewritten: whole descriptions. An answer to a question means nothing without it."""
        if (self.facts or {}).get("answer") is None:
            for place, candidate in enumerate(self.texts):
                if candidate["origin"] in ORIGINALS and candidate["finish_reason"] != "length":
                    yield place, candidate


@dataclass
class Made:
    """What becomes of the rows of a shard: candidates, what was refused, or the failure of a whole row. State: all of
    it, until ``table``."""

    ids: Sequence[str]
    failures: dict[str, Failure]
    candidates: dict[str, list[Candidate]] = field(default_factory=dict)
    refused: dict[str, list[Refused]] = field(default_factory=dict)

    def add(
        self, row: Row, place: int, origin: str, rewrite: Rewrite | Problem, proposed: str | None = None, **extras: Any
    ) -> None:
        """A rewrite of the candidate at ``place``, or why there is none, with what a model ``proposed``; ``extras`` are
        further columns."""
        if isinstance(rewrite, Problem):
            self.refuse(row, place, rewrite, proposed)
            return
        edits = [{"start": e.start, "end": e.end, "old": e.old, "new": e.new} for e in rewrite.edits]
        candidate = {"text": rewrite.text, "origin": origin, "parent": place, "edits": edits or None, **extras}
        self.candidates.setdefault(row.id, []).append(candidate)

    def refuse(self, row: Row, place: int, why: Problem, text: str | None = None) -> None:
        self.refused.setdefault(row.id, []).append(refusal(place, why, text))

    def fail(self, row: Row, failure: Failure) -> None:
        self.failures[row.id] = failure

    @contextmanager
    def guard(self, row: Row) -> Iterator[None]:
        """Any error is that of this row, and no reason to lose the others: texts are as odd as models are."""
        try:
            yield
        except PipelineError:
            raise
        except Exception as error:
            self.fail(row, (type(error).__name__, str(error)))

    def table(self) -> pa.Table:
        rows = [
            {"id": row_id, **error_status(*self.failures[row_id])}
            if row_id in self.failures
            else {
                "id": row_id,
                "candidates": self.candidates.get(row_id, []),
                "refused": self.refused.get(row_id, []),
                **OK,
            }
            for row_id in self.ids
        ]
        return stage_table(rows, REWRITTEN)


def refusal(place: int, why: Problem, text: str | None = None) -> Refused:
    return {"candidate": place, "text": text, "error_type": why.kind, "error": why.message}


def read(
    tables: Mapping[str, pa.Table],
    prompts: str,
    parts: Sequence[str],
    *,
    detected: bool = True,
    pictures: bool = False,
) -> tuple[list[Row], Made]:
    """The rows of a shard that did not fail, and where to put what comes of them. The texts are those of the tables
    ``parts``; ``detected``: with the findings, ``pictures``: with the images."""
    sampled = GatherStage(tuple(parts)).process(None, {name: tables[name] for name in parts}).to_pylist()
    ids = [row["id"] for row in sampled]
    wanted = pa.array(ids, pa.string())
    names = ["id", "facts", *(["images"] if pictures else [])]
    prompted = columns.align(tables[prompts].select(names), wanted).to_pylist()
    looked = columns.align(tables[DETECT], wanted).to_pylist() if detected else [None] * len(ids)
    rows: list[Row] = []
    failures: dict[str, Failure] = {}
    for row, prompt, detected_row in zip(sampled, prompted, looked, strict=True):
        bad = next((part for part in (row, detected_row) if part is not None and part["status"] != "ok"), None)
        if bad is not None:
            failures[row["id"]] = (bad["error_type"], bad["error"])
            continue
        findings = _findings(detected_row["findings"]) if detected_row is not None else {}
        rows.append(Row(row["id"], prompt.get("images") or (), prompt["facts"], row["candidates"], findings))
    return rows, Made(ids, failures)


def origin_counts(table: pa.Table) -> dict[str, int]:
    """How many texts there are of each origin, and how many were not made, by the kind of reason."""
    made = Counter(columns.items(table["candidates"], "origin").to_pylist())
    kinds = Counter(columns.items(table["refused"], "error_type").to_pylist())
    return {**dict(sorted(made.items())), **dict(sorted(kinds.items()))}


def lexicon(name: str) -> Lexicon:
    """The words of a recipe's ``rewrite.vocabulary``.

    Raises:
        ConfigError: the file cannot be used.
    """
    return scorers.lexicon(name, "rewrite.vocabulary")


def image_digest(images: Iterable[Mapping[str, Any]] | None, text: str = "") -> bytes:
    """What tells images, and a question about them, from others: some bytes of a hash, for there may be millions."""
    total = hashlib.blake2b(digest_size=12)
    for image in images or ():
        data = image["bytes"] if image["bytes"] is not None else str(image["path"]).encode("utf-8", "replace")
        total.update(hashlib.blake2b(data, digest_size=12).digest())
    total.update(text.encode("utf-8", "replace"))
    return total.digest()


@dataclass(frozen=True)
class TextQuestion:
    """What a model is asked to make of a candidate. ``seed`` is that of the first of several answers."""

    row: Row
    place: int
    question: Question
    seed: int

    @property
    def id(self) -> str:
        return f"{self.row.id}#{self.place}"

    def columns(self, spec: Sample, number: int = 0) -> dict[str, Any]:
        """Who made the ``number``-th answer, and how."""
        (temperature,) = spec.temperatures
        writer = {"model": spec.model, "revision": spec.revision, "temperature": temperature}
        return {**writer, "seed": self.seed + number}


def answers(
    model: Engine, spec: Sample, subjects: Iterable[TextQuestion], made: Made, n: int = 1
) -> Iterator[tuple[TextQuestion, list[Answer]]]:
    """``n`` answers to every question about a row that does not fail; a row fails with the first error of the engine,
    or if an image of it is gone."""
    requests: Requests[TextQuestion] = Requests()
    sendable: list[TextQuestion] = []
    (temperature,) = spec.temperatures
    system = (("system", spec.system_prompt),) if spec.system_prompt is not None else ()
    for subject in subjects:
        try:
            images = pictures(subject.row.images if subject.question.images else ())
        except UNREADABLE as error:
            made.fail(subject.row, unreadable(error))
            continue
        sendable.append(subject)
        request = Request(subject.id, images, (*system, ("user", subject.question.text)), subject.seed)
        requests.add(subject, request, Sampling(n, temperature, spec.top_p, subject.question.max_tokens))
    responses: dict[str, Response] = {}
    for subject, _, _, response in requests.responses(model):
        responses[subject.id] = response
        if (why := failure(response)) is not None:
            made.fail(subject.row, why)
    for subject in sendable:  # in their own order, whatever that of the answers
        if subject.row.id not in made.failures:
            completions = responses[subject.id].completions
            yield subject, [Answer(answer.text, answer.finish_reason == "stop") for answer in completions]


def _findings(column: Iterable[Mapping[str, Any]]) -> dict[int, tuple[Finding, ...]]:
    findings: dict[int, list[Finding]] = {}
    for row in column:
        fields = {name: value for name, value in row.items() if name != "candidate"}
        findings.setdefault(row["candidate"], []).append(Finding(**fields))
    return {place: tuple(group) for place, group in findings.items()}
