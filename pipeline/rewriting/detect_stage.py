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
from pipeline.base.tables import DETECTED, OK, VERDICTS, error_status, stage_table
from pipeline.engines.protocol import Engine
from pipeline.rewriting.by_claims import by_claims
from pipeline.rewriting.by_detector import OpenDetector, PluggedDetector
from pipeline.rewriting.checked import Checked, check, tally
from pipeline.rewriting.config import Detect
from pipeline.rewriting.lineage import DETECT, Row, lexicon, read, refusal
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
ByText = Mapping[int, tuple[Finding, ...] | Problem]
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
        plug_in = self.spec.plug_in()
        if not plug_in or not plug_in.in_worker:
            return None
        return WorkerSpec(f"detector:{plug_in.name}", OpenDetector(plug_in), gpus=1.0, count="auto")

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
        recorded: dict[str, Any] = {"by": self.spec.by, "rules": VERSION, "lexicon": lexicon(self.words).version}
        if (plug_in := self.spec.plug_in()) is not None:
            return {**recorded, "identity": plug_in.identity}
        if self.asked is None:
            return {**recorded, "complete": self.spec.complete}
        limits = {"low": self.spec.low, "high": self.spec.high} if self.spec.by == "claims" else {}
        return {**recorded, **limits, "asked": self.asked.ask.scored_as}

    def process(self, model: Any, tables: Mapping[str, pa.Table]) -> pa.Table:
        rows, made = read(tables, self.prompts, (self.described,), detected=False)
        words = lexicon(self.words)
        plug_in = model if isinstance(model, PluggedDetector) else self.spec.plug_in()
        if plug_in is not None:
            shown, problems = candidate_rows(tables[self.prompts], tables[self.described])
            made.failures.update(problems)
        verdicts = self._verdicts(tables, made.failures)
        done: dict[str, dict[str, Any]] = {}
        for row in rows:
            with made.guard(row):
                failure = made.failures.get(row.id)
                if failure is not None:
                    findings: ByText = _problem_for_all(row, failure)
                elif plug_in is not None:
                    findings = {at: plug_in.findings(each["text"], shown[row.id]) for at, each in row.originals()}
                else:
                    findings = self._by_text(row, words, verdicts.get(row.id, ()))
                done[row.id] = {**_columns_of(findings, failure), "checked": list(self._checks(row, findings, words))}
        table = [{"id": key, **(done[key] if key in done else error_status(*made.failures[key]))} for key in made.ids]
        return stage_table(table, self.schema)

    def extras(self, table: pa.Table) -> dict[str, int]:
        """Findings by verdict, claims without one (``unread``), texts that could not be looked through, and how right a
        model or a plug-in is: a ``tally`` of the sentences that were checked (``pipeline.rewriting.checked.rates``
        makes shares of it)."""
        verdicts = Counter(columns.items(table["findings"], "verdict").to_pylist())
        by_verdict = {name: verdicts[name] for name in sorted(verdicts)}
        checked = tally(_texts(table["checked"])) if self.spec.by != "facts" else {}
        reasons = columns.items(table["findings"], "reason").drop_null()
        open_ones = pc.sum(pc.starts_with(reasons, fact_findings.NO_VERDICT)).as_py() or 0
        unread = {"unread": open_ones} if self.spec.by == "claims" else {}
        return {**by_verdict, **unread, "refused": len(columns.items(table["refused"])), **checked}

    def _verdicts(
        self, tables: Mapping[str, pa.Table], failures: dict[str, tuple[str, str]]
    ) -> dict[str, list[Verdict]]:
        """The verdicts of each row; rows that could not be asked about are put into ``failures``."""
        if self.asked is None:
            return {}
        verdicts = {}
        for row in tables[self.asked.name].to_pylist():
            if row["status"] == "ok":
                verdicts[row["id"]] = read_verdicts(row["verdicts"])
            else:
                failures.setdefault(row["id"], (row["error_type"], row["error"]))
        return verdicts

    def _by_text(self, row: Row, words: Lexicon, verdicts: Sequence[Verdict]) -> ByText:
        return {at: self._findings(row, at, each["text"], words, verdicts) for at, each in row.originals()}

    def _checks(self, row: Row, findings: ByText, words: Lexicon) -> Iterator[dict[str, Any]]:
        for place, of_text in findings.items() if self.spec.by != "facts" else ():
            for sentence in check(row.texts[place]["text"], of_text, row.facts, words):
                yield {"candidate": place, **sentence._asdict()}

    def _findings(
        self, row: Row, place: int, text: str, words: Lexicon, verdicts: Sequence[Verdict]
    ) -> tuple[Finding, ...] | Problem:
        if self.spec.by == "facts":
            return fact_findings.by_facts(text, row.facts, words, self.spec.complete)
        if self.spec.by == "claims":
            objects = lexicon(self.spec.vocabulary) if self.spec.vocabulary is not None else None
            return by_claims(text, place, verdicts, objects, self.spec.low, self.spec.high)
        assert self.asked is not None and isinstance(self.asked.ask.asker, JudgeDetector)
        return self.asked.ask.asker.findings(text, place, verdicts)


def stages(
    spec: Detect, words: str, prompts: str, described: str, sampled: Sequence[Sample], seed: int
) -> list[AskDetector | DetectStage]:
    """The stages that detection takes.

    Raises:
        ConfigError: a vocabulary cannot be used.
    """
    if spec.by == "facts" or spec.plug_in() is not None:
        return [DetectStage(spec, words, prompts, described)]
    asking = AskDetector(AskStage(spec.spec(sampled), _asker(spec), seed), prompts, described)
    return [asking, DetectStage(spec, words, prompts, described, asking)]


def _asker(spec: Detect) -> Asker:
    if spec.by == "judge":
        return JudgeDetector(spec.facts, not spec.blind, spec.max_tokens)
    words = None
    if spec.vocabulary is not None:
        words = vocabulary(spec.vocabulary, "rewrite.detect.vocabulary")
    return ClaimScorer(spec.splitter, words, spec.template, spec.template_many, spec.max_tokens, spec.min_mass)


def _problem_for_all(row: Row, failure: Failure) -> ByText:
    """The same reason for every text of a row."""
    return {place: Problem(*failure) for place, _ in row.originals()}


def _columns_of(by_text: ByText, failure: Failure | None) -> dict[str, Any]:
    """The row of a table: what was found in each text. ``failure`` is that of the row, if it came before."""
    if failure is not None:
        return error_status(*failure)
    problems = [refusal(place, problem) for place, problem in by_text.items() if isinstance(problem, Problem)]
    if problems and len(problems) == len(by_text):
        kind, message = problems[0]["error_type"], problems[0]["error"]
        return {"refused": problems, **error_status(kind, f"no text could be looked through, the first one: {message}")}
    findings = [
        {"candidate": place, **{name: getattr(finding, name) for name in Finding.__slots__}}
        for place, of_text in by_text.items()
        if not isinstance(of_text, Problem)
        for finding in of_text
    ]
    return {"findings": findings, "refused": problems, **OK}


def _texts(column: Any) -> Iterator[list[Checked]]:
    """The sentences of each text that was checked. Those of a text stand behind each other."""
    for row in column.to_pylist():
        checked: Iterable[dict[str, Any]] = row or ()
        for _, sentences in itertools.groupby(checked, key=lambda sentence: sentence["candidate"]):
            yield [Checked(sentence["sentence"], sentence["says"], sentence["true"]) for sentence in sentences]
