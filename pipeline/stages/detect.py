"""What is wrong in every sampled text, sentence by sentence: by the facts, a judge's verdicts, or answered claims."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline import columns
from pipeline.config.rewrite import Detect
from pipeline.config.sample import Sample
from pipeline.engines import Engine
from pipeline.rewriting import VERSION, Finding, Problem, detect
from pipeline.rewriting.judge import JudgeDetector
from pipeline.rewriting.lexicon import Lexicon
from pipeline.scorers import vocabulary
from pipeline.stages import WorkerSpec
from pipeline.stages.ask import AskStage, read_verdicts
from pipeline.stages.lineage import DETECT, Row, lexicon, read, refused
from pipeline.tables import DETECTED, OK, VERDICTS, failed
from reward import Asker, Verdict
from reward.claims import ClaimScorer

#: What a model said of the texts.
ASKED = "detect-asked"


@dataclass(frozen=True)
class AskDetector:
    """Ask a model about the texts of ``described``, which answer the prompts in ``prompts``."""

    ask: AskStage
    prompts: str
    described: str

    name = ASKED
    version = 1
    schema = VERDICTS

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.prompts, self.described)

    @property
    def worker(self) -> WorkerSpec:
        return self.ask.worker

    def options(self) -> dict[str, Any]:
        return self.ask.options()

    def process(self, model: Engine, tables: Mapping[str, pa.Table]) -> pa.Table:
        return self.ask.process(model, {"source": tables[self.prompts], "sample": tables[self.described]})

    def extras(self, table: pa.Table) -> dict[str, int]:
        return self.ask.extras(table)


@dataclass(frozen=True)
class DetectStage:
    """``asked`` is the stage that asked a model, None where facts decide. Looked through are whole descriptions, not
    answers to questions. A row fails if none of its texts could be looked through."""

    spec: Detect
    words: str
    prompts: str
    described: str
    asked: AskDetector | None = None

    name = DETECT
    version = 1
    schema = DETECTED
    worker = None

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.prompts, self.described, *((self.asked.name,) if self.asked else ()))

    def options(self) -> dict[str, Any]:
        own: dict[str, Any] = {"by": self.spec.by, "rules": VERSION, "lexicon": lexicon(self.words).version}
        if self.asked is None:
            return {**own, "complete": self.spec.complete}
        limits = {"low": self.spec.low, "high": self.spec.high} if self.spec.by == "claims" else {}
        return {**own, **limits, "asked": self.asked.ask.scored_as}

    def process(self, model: Any, tables: Mapping[str, pa.Table]) -> pa.Table:
        rows, made = read(tables, self.prompts, (self.described,), detected=False)
        known = lexicon(self.words)
        said = self._said(tables, made.failures)
        done: dict[str, dict[str, Any]] = {}
        for row in rows:
            if row.id not in made.failures:
                with made.guard(row):
                    done[row.id] = self._looked(row, known, said.get(row.id, []))
        table = [{"id": one, **(done[one] if one in done else failed(*made.failures[one]))} for one in made.ids]
        return pa.Table.from_pylist(table, schema=DETECTED)

    def extras(self, table: pa.Table) -> dict[str, int]:
        """Findings by verdict, and texts that could not be looked through."""
        verdicts = Counter(columns.items(table["findings"], "verdict").to_pylist())
        return {**{name: verdicts[name] for name in sorted(verdicts)}, "refused": len(columns.items(table["refused"]))}

    def _said(self, tables: Mapping[str, pa.Table], failures: dict[str, tuple[str, str]]) -> dict[str, list[Verdict]]:
        """The verdicts of each row; rows that could not be asked about are put into ``failures``."""
        if self.asked is None:
            return {}
        said = {}
        for row in tables[self.asked.name].to_pylist():
            if row["status"] == "ok":
                said[row["id"]] = read_verdicts(row["verdicts"])
            else:
                failures.setdefault(row["id"], (row["error_type"], row["error"]))
        return said

    def _looked(self, row: Row, known: Lexicon, verdicts: Sequence[Verdict]) -> dict[str, Any]:
        findings: list[dict[str, Any]] = []
        problems: list[dict[str, Any]] = []
        texts = 0
        for place, one in row.originals():
            texts += 1
            found = self._findings(row, place, one["text"], known, verdicts)
            if isinstance(found, Problem):
                problems.append(refused(place, found))
            else:
                findings += ({"candidate": place, **_columns(finding)} for finding in found)
        if texts and len(problems) == texts:
            kind, message = problems[0]["error_type"], problems[0]["error"]
            return {"refused": problems, **failed(kind, f"no text could be looked through, the first one: {message}")}
        return {"findings": findings, "refused": problems, **OK}

    def _findings(
        self, row: Row, place: int, text: str, known: Lexicon, verdicts: Sequence[Verdict]
    ) -> tuple[Finding, ...] | Problem:
        if self.spec.by == "facts":
            return detect.by_facts(text, row.facts, known, self.spec.complete)
        if self.spec.by == "claims":
            own = lexicon(self.spec.vocabulary) if self.spec.vocabulary is not None else None
            return detect.by_claims(text, place, verdicts, own, self.spec.low, self.spec.high)
        assert self.asked is not None and isinstance(self.asked.ask.asker, JudgeDetector)
        return self.asked.ask.asker.findings(text, place, verdicts)


def stages(
    spec: Detect, words: str, prompts: str, described: str, sampled: Sequence[Sample], seed: int
) -> list[AskDetector | DetectStage]:
    """The stages that detection takes.

    Raises:
        ConfigError: a vocabulary cannot be used.
    """
    if spec.by == "facts":
        return [DetectStage(spec, words, prompts, described)]
    asked = AskDetector(AskStage(spec.spec(sampled), _asker(spec), seed), prompts, described)
    return [asked, DetectStage(spec, words, prompts, described, asked)]


def _asker(spec: Detect) -> Asker:
    if spec.by == "judge":
        return JudgeDetector(spec.facts, not spec.blind, spec.max_tokens)
    known = None
    if spec.vocabulary is not None:
        known = vocabulary(spec.vocabulary, "rewrite.detect.vocabulary")
    return ClaimScorer(spec.splitter, known, spec.template, spec.template_many, spec.max_tokens)


def _columns(finding: Finding) -> dict[str, Any]:
    return {name: getattr(finding, name) for name in Finding.__slots__}
