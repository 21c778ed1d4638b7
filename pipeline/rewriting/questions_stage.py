"""Questions about described images: what descriptions made up, what they got right, and what goes along with it.

Zhao et al. 2023 (HA-DPO, arXiv 2311.16839): descriptive pairs become questions with a right and a wrong answer, as POPE
asks them; what the model answers right is left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.base import columns, seeds
from pipeline.base.errors import InputError
from pipeline.base.tables import PROMPTS, REWRITTEN
from pipeline.rewriting import questions
from pipeline.rewriting.config import Questions
from pipeline.rewriting.inject_stage import TOGETHER, together
from pipeline.rewriting.lineage import DETECT, Candidate, Made, Row, image_digest, lexicon, origin_counts, read
from pipeline.running.store import Run
from pipeline.sources.admission.verdicts import Verdicts
from pipeline.sources.readers.protocol import Entry, user_turn
from pipeline.sources.stage import spool_shards
from reward.scorers.correctness import CorrectnessScorer
from reward.text.types import VERSION, Problem, Rewrite

NAME = "questions"
ASKED = "sample-asked"
ANSWERED = "sample-answered"
#: How ``source`` of a question begins; what it was made for follows.
SOURCE = "rewrite"
_NOTHING = (
    "no description could be asked about: take more prompts (--preview N: a larger N), or set rewrite.questions=null"
)


@dataclass(frozen=True)
class QuestionSource:
    """Questions about the images of ``prompts`` whose descriptions in ``described`` were looked through, as prompts of
    their own with their facts and right answers. One that was asked about the image already is not asked again.

    ``max_bytes`` and ``max_pixels`` are how large an image of the prompts may be.
    """

    spec: Questions
    words: str
    seed: int
    shard_size: int
    prompts: str
    described: str
    max_bytes: int
    max_pixels: int
    complete: bool = True

    name = NAME
    version = 3
    schema = PROMPTS

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.prompts, self.described, DETECT, TOGETHER)

    def options(self) -> dict[str, Any]:
        return {
            "seed": self.seed,
            "per_image": self.spec.per_image,
            "short": self.spec.short,
            "rules": VERSION,
            "lexicon": lexicon(self.words).version,
            "complete": self.complete,
            "shard_size": self.shard_size,
        }

    def shards(self, run: Run) -> Iterator[tuple[int, pa.Table]]:
        """
        Raises:
            InputError: a table is not finished, or there is nothing to ask.
        """
        verdicts = Verdicts(self.max_bytes, self.max_pixels, hashed=False)
        entries = self._entries(run)
        yield from spool_shards(run, self.name, self.shard_size, entries, verdicts, remedy=_NOTHING)

    def extras(self, table: pa.Table) -> dict[str, int]:
        return {}

    def _entries(self, run: Run) -> Iterator[Entry]:
        words = lexicon(self.words)
        numbers = self._numbers(run)
        present = {
            image_digest(row["images"], _text(row)) for n in numbers for row in run.read(self.prompts, n).to_pylist()
        }
        for number in numbers:
            tables = {name: run.read(name, number) for name in self.inputs}
            common = together(tables[TOGETHER])
            rows, _ = read(tables, self.prompts, (self.described,), pictures=True)
            for row in rows:
                told = [
                    (candidate["text"], row.findings[at]) for at, candidate in row.originals() if at in row.findings
                ]
                if not told or len(row.images) != 1:
                    continue
                seed = seeds.derive(self.seed, f"{row.id}#questions", "rules")
                spec = self.spec
                for question in questions.ask(
                    row.facts, told, words, common, seed, spec.per_image, spec.short, complete=self.complete
                ):
                    if image_digest(row.images, question.text) not in present:
                        facts = {
                            **(row.facts or {}),
                            "question_type": question.question_type,
                            "answer": question.answer,
                        }
                        yield Entry(row.images, user_turn(question.text), facts, f"{SOURCE}:{question.why}")

    def _numbers(self, run: Run) -> list[int]:
        numbers = run.shards(self.prompts)
        for name in self.inputs:
            if not numbers or run.shards(name) != numbers:
                raise InputError(
                    f"stage {self.name!r} reads {name!r}, which has {len(run.shards(name))} of {len(numbers)} shards",
                    "run the stages before it first",
                )
        return numbers


@dataclass(frozen=True)
class AnswerStage:
    """The model's answers to the questions, with the right answer behind a wrong one (origin ``corrected``) and the
    wrong one behind that (``injected``), where the model did not say just that.

    A question that the model answers right has its answer alone, and the reason; but for a share ``spec.keep_right`` of
    those to be answered with yes or no, by a hash of seed and question: there the wrong answer stands behind it.
    """

    spec: Questions
    seed: int

    name = ANSWERED
    version = 1
    inputs = (NAME, ASKED)
    schema = REWRITTEN
    worker = None

    def options(self) -> dict[str, Any]:
        return {"seed": self.seed, "keep_right": self.spec.keep_right, "scorer": CorrectnessScorer().version}

    def process(self, model: Any, tables: Mapping[str, pa.Table]) -> pa.Table:
        sampled = tables[ASKED].to_pylist()
        prompts = columns.align(tables[NAME].select(["id", "facts"]), columns.whole(tables[ASKED]["id"])).to_pylist()
        failures = {row["id"]: (row["error_type"], row["error"]) for row in sampled if row["status"] != "ok"}
        made = Made([row["id"] for row in sampled], failures)
        for row, prompt in zip(sampled, prompts, strict=True):
            if row["status"] == "ok":
                self._answer(Row(row["id"], [], prompt["facts"], row["candidates"]), made)
        return made.table()

    def extras(self, table: pa.Table) -> dict[str, int]:
        return origin_counts(table)

    def _answer(self, row: Row, made: Made) -> None:
        made.candidates[row.id] = [dict(candidate) for candidate in row.texts]
        right = str((row.facts or {})["answer"])
        wrong = opposite(right)
        (values,) = CorrectnessScorer().score([{"facts": row.facts, "candidates": row.texts}])["correctness"]
        for place, value in enumerate(values):
            text = row.texts[place]["text"]
            if value is None:
                made.refuse(row, place, Problem("unreadable", "no answer can be read"))
            elif value == 0:
                at = self._add(row, place, "corrected", in_the_style_of(text, right), made)
                if wrong is not None and (other := in_the_style_of(text, wrong)) != text:
                    self._add(row, at, "injected", other, made)
            elif wrong is not None and self._keeps(row):
                self._add(row, place, "injected", in_the_style_of(text, wrong), made)
            else:
                made.refuse(row, place, Problem("answered_right", "the model knows the answer"))

    def _add(self, row: Row, parent: int, origin: str, text: str, made: Made) -> int:
        candidates: list[Candidate] = made.candidates[row.id]
        old = candidates[parent]["text"]
        made.add(row, parent, origin, Rewrite.of(old, [(0, len(old), text)]))
        return len(candidates) - 1

    def _keeps(self, row: Row) -> bool:
        drawn = hashlib.blake2b(f"{self.seed}:{row.id}:keep_right".encode(), digest_size=6).digest()
        return int.from_bytes(drawn, "big") < self.spec.keep_right * 2**48


def opposite(answer: str) -> str | None:
    """
    >>> opposite("Yes"), opposite("no"), opposite("red")
    ('No', 'Yes', None)
    """
    return {"yes": "No", "no": "Yes"}.get(answer.lower())


def in_the_style_of(text: str, answer: str) -> str:
    """An answer, written as ``text`` is if that is a word: with its capital and its full stop.

    >>> in_the_style_of("yes.", "No"), in_the_style_of("Yes", "no"), in_the_style_of("There is one, yes.", "no")
    ('no.', 'No', 'No.')
    """
    stop = text[-1:] if text[-1:] in (".", "!") else ""
    first = answer[:1].upper() if text[:1].isupper() else answer[:1].lower()
    return first + answer[1:] + stop


def _text(row: Mapping[str, Any]) -> str:
    return row["prompt"][-1]["content"] if row["prompt"] else ""
