"""What is wrong in every sampled text, sentence by sentence: by the facts, a judge's verdicts, answered claims, or a
plug-in.

Where one of the last three decides and exact facts are there too, what it says of each sentence is held against them
(``pipeline.rewriting.checked``). That changes no finding; it tells how far to trust them.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.base import columns
from pipeline.base.tables import DETECTED, OK, VERDICTS, failed, stored
from pipeline.engines.protocol import Engine
from pipeline.rewriting.by_claims import by_claims
from pipeline.rewriting.by_detector import OpenDetector, PluggedDetector
from pipeline.rewriting.checked import Checked, check, tally
from pipeline.rewriting.config import Detect
from pipeline.rewriting.lineage import DETECT, Row, lexicon, read, refused
from pipeline.rewriting.sentence_judge import JudgeDetector
from pipeline.running.stage import WorkerSpec
from pipeline.sampling.config import Sample
from pipeline.sampling.requests import Failure
from pipeline.scoring.ask import AskStage, candidate_rows, read_verdicts
from pipeline.scoring.vocabularies import vocabulary
from reward.asking.claims import ClaimScorer
from reward.asking.protocol import Asker, Verdict
from reward.text import fact_findings
from reward.text.lexicon import Lexicon
from reward.text.types import VERSION, Finding, Problem

#: What is found in each text of a row, by its number, or why nothing is.
Found = Mapping[int, tuple[Finding, ...] | Problem]
#: What a model said of the texts.
ASKED = "detect-asked"
#: What a model ``says`` of a sentence, null where its answer could not be read, and what is ``true`` by exact facts.
CHECKED = pa.struct([("candidate", pa.int32()), ("sentence", pa.int32()), ("says", pa.string()), ("true", pa.string())])
#: Unless facts decide: as ``DETECTED``, with every sentence that facts could be asked about.
JUDGED = pa.schema([*DETECTED, ("checked", pa.list_(CHECKED))])


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
    """``asked`` is the stage that asked a model, None where facts or a plug-in decide. Looked through are whole
    descriptions, not answers to questions. A row fails if none of its texts could be looked through; sentences that are
    checked are kept in any case."""

    spec: Detect
    words: str
    prompts: str
    described: str
    asked: AskDetector | None = None

    name = DETECT

    @property
    def worker(self) -> WorkerSpec | None:
        own = self.spec.plugged()
        return WorkerSpec(f"detector:{own.name}", OpenDetector(own), gpus=1.0) if own and own.in_worker else None

    @property
    def version(self) -> int:
        # Since 2, what a model says is checked; since 3, a claim without a verdict leaves its sentence open. What facts
        # say is what it was.
        return 1 if self.spec.by == "facts" else 3 if self.spec.by == "claims" else 2

    @property
    def schema(self) -> pa.Schema:
        return DETECTED if self.spec.by == "facts" else JUDGED

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.prompts, self.described, *((self.asked.name,) if self.asked else ()))

    def options(self) -> dict[str, Any]:
        own: dict[str, Any] = {"by": self.spec.by, "rules": VERSION, "lexicon": lexicon(self.words).version}
        if (plugged := self.spec.plugged()) is not None:
            return {**own, "identity": plugged.identity}
        if self.asked is None:
            return {**own, "complete": self.spec.complete}
        limits = {"low": self.spec.low, "high": self.spec.high} if self.spec.by == "claims" else {}
        return {**own, **limits, "asked": self.asked.ask.scored_as}

    def process(self, model: Any, tables: Mapping[str, pa.Table]) -> pa.Table:
        rows, made = read(tables, self.prompts, (self.described,), detected=False)
        known = lexicon(self.words)
        plugged = model if isinstance(model, PluggedDetector) else self.spec.plugged()
        if plugged is not None:
            shown, problems = candidate_rows(tables[self.prompts], tables[self.described])
            made.failures.update(problems)
        said = self._said(tables, made.failures)
        done: dict[str, dict[str, Any]] = {}
        for row in rows:
            with made.guard(row):
                failure = made.failures.get(row.id)
                if failure is not None:
                    found: Found = _silent(row, failure)
                elif plugged is not None:
                    found = {place: plugged.findings(one["text"], shown[row.id]) for place, one in row.originals()}
                else:
                    found = self._found(row, known, said.get(row.id, ()))
                done[row.id] = {**_columns_of(found, failure), "checked": list(self._checked(row, found, known))}
        table = [{"id": one, **(done[one] if one in done else failed(*made.failures[one]))} for one in made.ids]
        return stored(table, self.schema)

    def extras(self, table: pa.Table) -> dict[str, int]:
        """Findings by verdict, claims without one (``unread``), texts that could not be looked through, and how right a
        model or a plug-in is: a ``tally`` of the sentences that were checked (``pipeline.rewriting.checked.rates``
        makes shares of it)."""
        verdicts = Counter(columns.items(table["findings"], "verdict").to_pylist())
        found = {name: verdicts[name] for name in sorted(verdicts)}
        checked = tally(_texts(table["checked"])) if self.spec.by != "facts" else {}
        own = columns.items(table["findings"], "reason").drop_null()
        open_ones = pc.sum(pc.starts_with(own, fact_findings.NO_VERDICT)).as_py() or 0
        said = {"unread": open_ones} if self.spec.by == "claims" else {}
        return {**found, **said, "refused": len(columns.items(table["refused"])), **checked}

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

    def _found(self, row: Row, known: Lexicon, verdicts: Sequence[Verdict]) -> Found:
        return {place: self._findings(row, place, one["text"], known, verdicts) for place, one in row.originals()}

    def _checked(self, row: Row, found: Found, known: Lexicon) -> Iterator[dict[str, Any]]:
        for place, own in found.items() if self.spec.by != "facts" else ():
            for one in check(row.texts[place]["text"], own, row.facts, known):
                yield {"candidate": place, **one._asdict()}

    def _findings(
        self, row: Row, place: int, text: str, known: Lexicon, verdicts: Sequence[Verdict]
    ) -> tuple[Finding, ...] | Problem:
        if self.spec.by == "facts":
            return fact_findings.by_facts(text, row.facts, known, self.spec.complete)
        if self.spec.by == "claims":
            own = lexicon(self.spec.vocabulary) if self.spec.vocabulary is not None else None
            return by_claims(text, place, verdicts, own, self.spec.low, self.spec.high)
        assert self.asked is not None and isinstance(self.asked.ask.asker, JudgeDetector)
        return self.asked.ask.asker.findings(text, place, verdicts)


def stages(
    spec: Detect, words: str, prompts: str, described: str, sampled: Sequence[Sample], seed: int
) -> list[AskDetector | DetectStage]:
    """The stages that detection takes.

    Raises:
        ConfigError: a vocabulary cannot be used.
    """
    if spec.by == "facts" or spec.plugged() is not None:
        return [DetectStage(spec, words, prompts, described)]
    asked = AskDetector(AskStage(spec.spec(sampled), _asker(spec), seed), prompts, described)
    return [asked, DetectStage(spec, words, prompts, described, asked)]


def _asker(spec: Detect) -> Asker:
    if spec.by == "judge":
        return JudgeDetector(spec.facts, not spec.blind, spec.max_tokens)
    known = None
    if spec.vocabulary is not None:
        known = vocabulary(spec.vocabulary, "rewrite.detect.vocabulary")
    return ClaimScorer(spec.splitter, known, spec.template, spec.template_many, spec.max_tokens, spec.min_mass)


def _silent(row: Row, failure: Failure) -> Found:
    """The same reason for every text of a row."""
    return {place: Problem(*failure) for place, _ in row.originals()}


def _columns_of(found: Found, failure: Failure | None) -> dict[str, Any]:
    """The row of a table: what was found in each text. ``failure`` is that of the row, if it came before."""
    if failure is not None:
        return failed(*failure)
    problems = [refused(place, own) for place, own in found.items() if isinstance(own, Problem)]
    if problems and len(problems) == len(found):
        kind, message = problems[0]["error_type"], problems[0]["error"]
        return {"refused": problems, **failed(kind, f"no text could be looked through, the first one: {message}")}
    findings = [
        {"candidate": place, **{name: getattr(one, name) for name in Finding.__slots__}}
        for place, own in found.items()
        if not isinstance(own, Problem)
        for one in own
    ]
    return {"findings": findings, "refused": problems, **OK}


def _texts(column: Any) -> Iterator[list[Checked]]:
    """The sentences of each text that was checked. Those of a text stand behind each other."""
    for row in column.to_pylist():
        own: Iterable[dict[str, Any]] = row or ()
        for _, sentences in itertools.groupby(own, key=lambda one: one["candidate"]):
            yield [Checked(one["sentence"], one["says"], one["true"]) for one in sentences]
