"""Texts in which something is wrong, corrected: only the wrong words change, by rules or by a model that is checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.base import seeds
from pipeline.base.tables import REWRITTEN
from pipeline.engines.protocol import Engine
from pipeline.rewriting import correct, corrector
from pipeline.rewriting.config import Correct
from pipeline.rewriting.lineage import DETECT, Made, Row, TextQuestion, answers, lexicon, origin_counts, read
from pipeline.running.stage import WorkerSpec
from pipeline.sampling.config import Sample
from pipeline.sampling.stage import identity_options, worker
from reward.text.fact_findings import hallucinations
from reward.text.types import VERSION, Problem

NAME = "sample-corrected"


@dataclass(frozen=True)
class CorrectStage:
    """One ``corrected`` candidate for every text of ``described`` with a finding that is a hallucination. ``asked`` is
    the model with ``by: model``, else None. ``complete`` as for ``DetectStage``.

    A row fails if the engine fails for one of its texts; one whose correction is refused has the reason.
    """

    spec: Correct
    words: str
    seed: int
    prompts: str
    described: str
    asked: Sample | None = None
    complete: bool = True

    name = NAME
    schema = REWRITTEN

    @property
    def version(self) -> int:
        # Since 2, a model's answer may go over several lines; since 3, what it says about its task is no correction;
        # since 4, neither is what by the facts is no better. What rules make is what it was.
        return 1 if self.asked is None else 4

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.prompts, self.described, DETECT)

    @property
    def worker(self) -> WorkerSpec | None:
        return worker(self.asked) if self.asked is not None else None

    def options(self) -> dict[str, Any]:
        identity: dict[str, Any] = {"lexicon": lexicon(self.words).version, "complete": self.complete}
        if self.asked is None:
            identity |= {"absent": self.spec.absent}
        else:
            identity |= {
                "blind": self.spec.blind,
                "max_tokens": self.spec.max_tokens,
                **identity_options(self.asked, self.seed),
            }
        return {"by": self.spec.by, "rules": VERSION, **identity}

    def process(self, model: Engine | None, tables: Mapping[str, pa.Table]) -> pa.Table:
        rows, made = read(tables, self.prompts, (self.described,), pictures=self.asked is not None)
        wrong = [
            (row, place) for row in rows for place, _ in row.originals() if hallucinations(row.findings.get(place, ()))
        ]
        if self.asked is None:
            self._by_rules(wrong, made)
        else:
            assert model is not None
            self._by_model(model, self.asked, wrong, made)
        return made.table()

    def extras(self, table: pa.Table) -> dict[str, int]:
        return origin_counts(table)

    def _by_rules(self, wrong: list[tuple[Row, int]], made: Made) -> None:
        words = lexicon(self.words)
        for row, place in wrong:
            text, findings = row.texts[place]["text"], row.findings[place]
            with made.guard(row):
                rewrite = correct.by_rules(text, findings, row.facts, words, self.spec.absent, complete=self.complete)
                made.add(row, place, "corrected", rewrite)

    def _by_model(self, model: Engine, sample: Sample, wrong: list[tuple[Row, int]], made: Made) -> None:
        subjects, words = [], lexicon(self.words)
        for row, place in wrong:
            text, findings = row.texts[place]["text"], row.findings[place]
            wanted = corrector.question(text, findings, row.facts, not self.spec.blind, self.spec.max_tokens)
            if isinstance(wanted, Problem):
                made.refuse(row, place, wanted)
            else:
                seed = seeds.derive(self.seed, f"{row.id}#corrected", sample.model, place)
                subjects.append(TextQuestion(row, place, wanted, seed))
        for subject, (answer,) in answers(model, sample, subjects, made):
            row, place = subject.row, subject.place
            with made.guard(row):
                text, findings = row.texts[place]["text"], row.findings[place]
                rewrite = corrector.read(answer, text, findings)
                if not isinstance(rewrite, Problem):
                    known = row.facts, words, self.complete
                    rewrite = corrector.still_wrong(text, findings, rewrite.text, *known) or rewrite
                made.add(row, place, "corrected", rewrite, answer.text, **subject.columns(sample))
