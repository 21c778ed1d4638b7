"""Texts in which nothing is wrong, made wrong: plausible objects, attributes, numbers and places that are not there.

Zhou et al. 2024, "Aligning Modalities in Vision Large Language Models via Preference Fine-tuning" (POVID,
arXiv 2402.11411), with rules over the facts in place of a language model.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.base import seeds
from pipeline.base.errors import InputError
from pipeline.base.tables import COOCCURRENCE, OK, REWRITTEN
from pipeline.rewriting import correct_stage as correct
from pipeline.rewriting import inject
from pipeline.rewriting.config import Inject
from pipeline.rewriting.lineage import DETECT, Made, Row, image_digest, lexicon, origin_counts, read
from pipeline.running.store import Run
from reward.text.cooccurrence import Cooccurrence
from reward.text.fact_findings import hallucinations, without_verdict
from reward.text.lexicon import Lexicon
from reward.text.types import VERSION, Problem

NAME = "sample-injected"
#: The table of what goes along with what.
TOGETHER = "cooccurrence"


@dataclass(frozen=True)
class CooccurrenceStage:
    """What goes along with what in the facts of all ``prompts``, those of each image once: as many equal shards as
    these have, so that a stage finds it beside each of them."""

    words: str
    prompts: str

    name = TOGETHER
    version = 1
    schema = COOCCURRENCE

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.prompts,)

    def options(self) -> dict[str, Any]:
        return {"rules": VERSION, "lexicon": lexicon(self.words).version}

    def shards(self, run: Run) -> Iterator[tuple[int, pa.Table]]:
        """
        Raises:
            InputError: there are no prompts.
        """
        numbers = run.shards(self.prompts)
        if not numbers:
            raise InputError(f"stage {self.name!r} reads {self.prompts!r}, which has no shards", "run `source` first")
        total = Cooccurrence()
        seen: set[bytes] = set()
        for number in numbers:
            total += Cooccurrence.of(_facts(run.read(self.prompts, number), seen), lexicon(self.words))
        table = pa.Table.from_pylist([{"id": self.name, "together": total.as_json(), **OK}], schema=COOCCURRENCE)
        for number in numbers:
            yield number, table

    def extras(self, table: pa.Table) -> dict[str, int]:
        return {}


def _facts(prompts: pa.Table, seen: set[bytes]) -> Iterator[Mapping[str, Any] | None]:
    """The facts of images that were not ``seen``, which grows."""
    for row in prompts.select(["images", "facts", "status"]).to_pylist():
        identity = image_digest(row["images"])
        if row["status"] == "ok" and identity not in seen:
            seen.add(identity)
            yield row["facts"]


def together(table: pa.Table) -> Cooccurrence:
    """What a shard of ``CooccurrenceStage`` says."""
    return Cooccurrence.from_json(table["together"][0].as_py())


@dataclass(frozen=True)
class InjectStage:
    """``spec.per_text`` candidates of origin ``injected`` for every text of ``described`` that was looked through and
    has no hallucination, and for every corrected one, if ``corrected``. Equal ones are made once."""

    spec: Inject
    words: str
    seed: int
    prompts: str
    described: str
    corrected: bool
    complete: bool = True

    name = NAME
    version = 2
    schema = REWRITTEN
    worker = None

    @property
    def inputs(self) -> tuple[str, ...]:
        return (self.prompts, *self._parts, DETECT, TOGETHER)

    def options(self) -> dict[str, Any]:
        chosen = self.spec.model_dump(mode="json")
        rules = {"lexicon": lexicon(self.words).version, "complete": self.complete}
        return {"seed": self.seed, **chosen, "rules": VERSION, **rules}

    def process(self, model: Any, tables: Mapping[str, pa.Table]) -> pa.Table:
        rows, made = read(tables, self.prompts, self._parts)
        words, common = lexicon(self.words), together(tables[TOGETHER])
        for row in rows:
            with made.guard(row):
                for place in _right(row, made):
                    self._inject(row, place, words, common, made)
        return made.table()

    def extras(self, table: pa.Table) -> dict[str, int]:
        return origin_counts(table)

    def _inject(self, row: Row, place: int, words: Lexicon, common: Cooccurrence, made: Made) -> None:
        seen = set()
        for number in range(self.spec.per_text):
            seed = seeds.derive(self.seed, f"{row.id}#injected", str(place), number)
            text, spec = row.texts[place]["text"], self.spec
            rewrite = inject.by_rules(
                text, row.facts, words, common, seed, spec.kinds, spec.faults, complete=self.complete
            )
            outcome = rewrite.kind if isinstance(rewrite, Problem) else rewrite.text
            if outcome not in seen:
                made.add(row, place, "injected", rewrite)
            seen.add(outcome)

    @property
    def _parts(self) -> tuple[str, ...]:
        return (self.described, *((correct.NAME,) if self.corrected else ()))


def _right(row: Row, made: Made) -> Iterator[int]:
    """The places of texts that say nothing wrong, as far as is known. Of a text with a claim that nobody could judge,
    too little is."""
    for place, _ in row.originals():
        if place in row.findings and not hallucinations(row.findings[place]):
            if open_ones := without_verdict(row.findings[place]):
                made.refuse(row, place, Problem("unreadable", f"{open_ones[0].words!r}: {open_ones[0].reason}"))
            else:
                yield place
    for place, candidate in enumerate(row.texts):
        if candidate["origin"] == "corrected":
            yield place
