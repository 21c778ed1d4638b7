"""Both sides of a pair in other words by one writer, so that they do not differ in style.

Zhao et al. 2023 (HA-DPO, arXiv 2311.16839), section 4.2: with chosen and rejected texts from different writers the
gradient is mostly about who wrote them. The writer hears the same about both; a paraphrase that says something else
than its original is refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.base import seeds
from pipeline.base.tables import REWRITTEN
from pipeline.engines.protocol import Engine
from pipeline.rewriting import restyle
from pipeline.rewriting.config import Restyle
from pipeline.rewriting.lineage import Made, Row, TextQuestion, answers, lexicon, origin_counts, read
from pipeline.running.stage import WorkerSpec
from pipeline.sampling.config import Sample
from pipeline.sampling.stage import identity_options, worker
from reward.text.types import VERSION, Problem, Rewrite

NAME = "sample-restyled"
#: What of a text is made from another one, which then is the other side of a pair.
_SIDES = frozenset({"corrected", "injected"})


@dataclass(frozen=True)
class RestyleStage:
    """Up to ``spec.paraphrases`` candidates of origin ``restyled`` for every corrected or injected text among those of
    the tables ``parts``, and for the text that each was made from. ``asked`` is the model with ``by: model``, else
    None.

    A row fails if the engine fails for one of its texts; a paraphrase that is refused has the reason. None is the text
    itself, and none of one text comes twice.
    """

    spec: Restyle
    words: str
    seed: int
    prompts: str
    parts: tuple[str, ...]
    asked: Sample | None = None

    name = NAME
    schema = REWRITTEN

    @property
    def version(self) -> int:
        # Since 2, what a model says about its task is no paraphrase; since 3, neither is what alone denies something,
        # or is in another language. What the grammar makes is what it was.
        return 1 if self.asked is None else 3

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.prompts, *self.parts)

    @property
    def worker(self) -> WorkerSpec | None:
        return worker(self.asked) if self.asked is not None else None

    def options(self) -> dict[str, Any]:
        rules = {"by": self.spec.by, "paraphrases": self.spec.paraphrases, "rules": VERSION, "parts": list(self.parts)}
        if self.asked is None:
            return {**rules, "seed": self.seed}
        writer = {"max_tokens": self.spec.max_tokens, **identity_options(self.asked, self.seed)}
        return {**rules, **writer, "lexicon": lexicon(self.words).version}

    def process(self, model: Engine | None, tables: Mapping[str, pa.Table]) -> pa.Table:
        rows, made = read(tables, self.prompts, self.parts, detected=False)
        if self.asked is None:
            self._by_grammar(rows, made)
        else:
            assert model is not None
            self._by_model(model, self.asked, rows, made)
        return made.table()

    def extras(self, table: pa.Table) -> dict[str, int]:
        return origin_counts(table)

    def _by_grammar(self, rows: list[Row], made: Made) -> None:
        for row in rows:
            # The seed is the prompt's, not the text's: both sides get the same wordings.
            seed = seeds.derive(self.seed, f"{row.id}#restyled", "grammar")
            with made.guard(row):
                for place in _sides(row):
                    texts = restyle.by_grammar(row.texts[place]["text"], seed, self.spec.paraphrases)
                    _add(made, row, place, [(text, None, {}) for text in texts])

    def _by_model(self, model: Engine, sample: Sample, rows: list[Row], made: Made) -> None:
        words = lexicon(self.words)
        subjects = [
            TextQuestion(
                row,
                place,
                restyle.question(row.texts[place]["text"], self.spec.max_tokens),
                seeds.derive(self.seed, f"{row.id}#restyled", sample.model, place),
            )
            for row in rows
            for place in _sides(row)
        ]
        for subject, replies in answers(model, sample, subjects, made, self.spec.paraphrases):
            text = subject.row.texts[subject.place]["text"]
            with made.guard(subject.row):
                made_of = [
                    (restyle.read(answer, text, words), answer.text, subject.columns(sample, number))
                    for number, answer in enumerate(replies)
                ]
                _add(made, subject.row, subject.place, made_of)


def _sides(row: Row) -> Iterator[int]:
    """The places of texts that are made from another one, and of those others."""
    made = {place: candidate["parent"] for place, candidate in enumerate(row.texts) if candidate["origin"] in _SIDES}
    yield from sorted({*made, *made.values()})


def _add(made: Made, row: Row, place: int, proposals: list[tuple[str | Problem, str | None, dict[str, Any]]]) -> None:
    """``proposals``: each paraphrase or why there is none, what the model said, and further columns."""
    seen = {row.texts[place]["text"]}
    for proposal, proposed, columns in proposals:
        if isinstance(proposal, Problem):
            made.refuse(row, place, proposal, proposed)
        elif proposal not in seen:
            seen.add(proposal)
            made.add(row, place, "restyled", Rewrite(proposal, ()), **columns)
