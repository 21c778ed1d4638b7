"""Tally a run's tables into ``pipeline.publishing.findings.Findings``, in memory that does not grow with the run.

Every count is exact. So is what the scores' values give (histograms, means, medians) as long as a score has at most
``pipeline.publishing.value_counts.LIMIT`` different values; beyond that a value counts as the middle of a cell narrower
than a ten-thousandth of the score's range. The number of seeds is an estimate beyond the same limit. Sources beyond the
first ``MOST_SOURCES`` are counted together.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.base import columns
from pipeline.base.columns import Ints
from pipeline.pairing.config import Pair
from pipeline.pairing.recorded import recorded_rule
from pipeline.pairing.rule import stops
from pipeline.pairing.stage import questions
from pipeline.publishing import blindness_gate
from pipeline.publishing import style_gate as consistency
from pipeline.publishing.curated import Curation
from pipeline.publishing.findings import EXAMPLES, Findings, Kind, Lengths, Spread
from pipeline.publishing.outcomes import failures, outcomes
from pipeline.publishing.value_counts import Distinct, Tally
from pipeline.rewriting.checked import rates
from pipeline.running import joined
from pipeline.running.joined import Example, Joined
from pipeline.running.store import Run, as_run
from pipeline.sources.stage import without_image
from reward.gates import GATES

#: Rows that the source left out, with a ``reason``.
DROPPED = "dropped"
#: Different sources that are told apart.
MOST_SOURCES = 1000
OTHER_SOURCES = "(others)"


def collect(run: Run | Path) -> Findings:
    """Read the tables of a run; stages that have not run yet are simply missing.

    The examples are drawn by a hash of their id, so the draw is fixed and nobody's choice; two thirds of them answer
    open prompts, if there are that many.

    Raises:
        InputError: there is no ``source`` table, or a row refers to a candidate that does not exist.
    """
    run = as_run(run)
    totals = _Totals(_rule(run))
    curation = Curation.of(run)
    for shard in joined.shards(run, curation):
        totals.add(shard)
    findings = Findings(
        prompts=totals.prompts,
        without_image=totals.without_image,
        candidates=totals.texts.total(),
        pairs=totals.paired.total(),
        outcomes=totals.outcomes,
        failures={key: (number, totals.messages[key]) for key, number in sorted(totals.failures.items())},
        texts=totals.texts,
        paired=totals.paired,
        seeds=totals.seeds.estimate,
        seeds_exact=totals.seeds.exact,
        policies=totals.policies,
        sources=totals.sources,
        dropped=_drop_reasons(run),
        gates=totals.gates,
        unbalanced=totals.unbalanced,
        scores=dict(sorted(totals.scores.items())),
        lengths=totals.lengths,
        examples=totals.drawn(),
        curated=curation.applied,
        style=consistency.read(run),
        blindness=blindness_gate.read(run),
        logp_gaps={kind: tally for kind, tally in totals.logp_gaps.items() if len(tally)},
        detector=rates(detected.extras) if (detected := run.record("detect")) is not None else None,
    )
    return replace(findings, examples=findings.some(EXAMPLES))


def _drop_reasons(run: Run) -> Counter[str]:
    reasons: Counter[str] = Counter()
    sources = [record for name in ("source", "prompts") if (record := run.record(name)) is not None]
    for shard in run.shards(DROPPED):
        about = run.about(DROPPED, shard)
        # They have no record of their own: they are those of the source that left them out.
        if about is None or not sources or any(source.believes(about) for source in sources):
            _count(reasons, run.read(DROPPED, shard)["reason"], "-")
    return reasons


def _rule(run: Run) -> Pair:
    """The options of pairing that decide which texts are stopped, as they were recorded."""
    record = run.record("pair")
    return recorded_rule(record.options if record is not None else {})


class _Totals:
    """The running totals of ``collect``. ``gating`` says which texts are stopped."""

    def __init__(self, gating: Pair) -> None:
        self._gating = gating
        self.gates: Counter[str] = Counter()
        self.unbalanced = 0
        self.prompts = self.without_image = 0
        self.outcomes: Counter[str] = Counter()
        self.failures: Counter[tuple[str, str]] = Counter()
        self.messages: dict[tuple[str, str], str] = {}
        self.texts: Counter[Kind] = Counter()
        self.paired: Counter[tuple[Kind, Kind]] = Counter()
        self.seeds = Distinct()
        self.policies: Counter[str] = Counter()
        self.sources: Counter[str] = Counter()
        self.scores: dict[str, Spread] = {}
        self.lengths = Lengths()
        self.logp_gaps = {kind: Tally() for kind in consistency.KINDS}
        self._kept: dict[bool, list[tuple[int, int, Example]]] = {True: [], False: []}
        self._ticket = count()

    def add(self, of: Joined) -> None:
        self.prompts += len(of.ids)
        self.without_image += without_image(of.source)
        self._count_outcomes(of)
        self._count_texts(of.texts)
        self._count_gates(of)
        self._count_scores(of)
        self._count_pairs(of)

    def drawn(self) -> list[Example]:
        """What the draw kept, smallest hash first; open prompts before questions."""
        return [example for kind in (False, True) for _, _, example in sorted(self._kept[kind], reverse=True)]

    def _count_outcomes(self, of: Joined) -> None:
        failed = list(failures(of))
        for failure in failed:
            key = (failure.stage, failure.error_type)
            self.failures[key] += 1
            self.messages.setdefault(key, failure.error)
        self.outcomes += Counter(outcomes(of, failed).to_pylist())

    def _count_texts(self, texts: Any) -> None:
        kinds = pa.table({name: pc.struct_field(texts, name) for name in Kind._fields})
        for values, number in _grouped(kinds):
            self.texts[_kind(values)] += number
        self.seeds.add(pc.struct_field(texts, "seed").drop_null().to_numpy())

    def _count_gates(self, of: Joined) -> None:
        prompts = questions(of.source["prompt"]) if self._gating.gates.read_prompts else [""] * len(of.source)
        texts = of.texts
        fields = (pc.struct_field(texts, name).to_pylist() for name in ("text", "finish_reason"))
        of_texts = (prompts[row] for row in columns.rows(of.sizes).tolist())
        stopped: Counter[str | None] = Counter()
        for (text, ended, prompt), number in Counter(zip(*fields, of_texts, strict=True)).items():
            stopped[stops(text, ended, self._gating, prompt)] += number
        self.gates += Counter({name: stopped[name] for name in GATES})  # in their order, which the card keeps
        self.unbalanced += int(columns.bools(pc.equal(of.pairs["reason"], "length_balance")).sum())

    def _count_scores(self, of: Joined) -> None:
        scored, numbers = of.scored, columns.floats(of.scored.values)
        for name in pc.unique(scored.name).to_pylist():
            at = np.flatnonzero(columns.bools(pc.equal(scored.name, name)))
            if name not in self.scores:
                self.scores[name] = Spread(scored.version[at[0]].as_py() or "-")
            values = numbers[columns.ranges(scored.begins[at], of.sizes[scored.row[at]])]
            finite = values[np.isfinite(values)]
            self.scores[name].every.add(finite)
            self.scores[name].nulls += len(values) - len(finite)

    def _count_pairs(self, of: Joined) -> None:
        pairs, prompt = of.complete_pairs()
        chosen, rejected = (columns.ints(pairs[side], -1) for side in ("chosen", "rejected"))
        first = columns.starts(of.sizes)[prompt]
        texts = [of.texts.take(pa.array(first + side)) for side in (chosen, rejected)]
        self.lengths.add(*(pc.struct_field(side, "text").to_pylist() for side in texts))
        kinds = pa.table([pc.struct_field(side, name) for side in texts for name in Kind._fields], names=_BOTH)
        for values, number in _grouped(kinds):
            half = len(Kind._fields)
            self.paired[_kind(values[:half]), _kind(values[half:])] += number
        _count(self.policies, pairs["policy"], "-")
        self._count_sources(of.source["source"].take(pa.array(prompt)))
        numbers = columns.floats(of.scored.values)
        for name, spread in self.scores.items():
            at = np.flatnonzero(columns.bools(pc.equal(of.scored.name, name)))
            begins = np.full(len(of.sizes), -1)
            begins[of.scored.row[at]] = of.scored.begins[at]
            has = begins[prompt] >= 0
            for tally, side in ((spread.chosen, chosen), (spread.rejected, rejected)):
                scored = numbers[begins[prompt][has] + side[has]]
                tally.add(scored[np.isfinite(scored)])
        for kind, gaps in consistency.logp_gaps(of).items():
            self.logp_gaps[kind].add(gaps)
        self._draw(of, pairs, prompt)

    def _count_sources(self, sources: Any) -> None:
        for source, number in _grouped(pa.table({"source": source_names(sources)})):
            listed = source[0] in self.sources or len(self.sources) < MOST_SOURCES
            self.sources[source[0] or "-" if listed else OTHER_SOURCES] += number

    def _draw(self, of: Joined, pairs: pa.Table, prompt: Ints) -> None:
        """Keep the pairs with the smallest hashes, of questions and of open prompts apart."""
        is_question = columns.bools(pc.struct_field(columns.whole(of.source["facts"]), "answer").is_valid())
        ids = pairs["id"].to_pylist()
        of_prompt: Counter[str] = Counter()
        for i, (row_id, row) in enumerate(zip(ids, prompt.tolist(), strict=True)):
            # Every pair of a prompt has a draw of its own.
            name = f"{row_id}:{of_prompt[row_id]}" if of_prompt[row_id] else row_id
            of_prompt[row_id] += 1
            # A heap of the smallest hashes: negated, because the largest of those kept has to go first.
            draw = -int.from_bytes(hashlib.sha256(f"example:{name}".encode()).digest()[:8])
            entry = (draw, -next(self._ticket))
            kept = self._kept[bool(is_question[row])]
            if len(kept) < EXAMPLES:
                heapq.heappush(kept, (*entry, of.example(pairs.slice(i, 1), row)))
            elif entry > kept[0][:2]:
                heapq.heapreplace(kept, (*entry, of.example(pairs.slice(i, 1), row)))


def source_names(sources: Any) -> Any:
    """Where prompts come from, without the line or row of a file at the end, which tells every one from every other."""
    return pc.replace_substring_regex(pc.fill_null(columns.whole(sources), "-"), r":\d+$", "")


_BOTH = [f"{side}_{name}" for side in ("chosen", "rejected") for name in Kind._fields]


def _kind(values: Sequence[Any]) -> Kind:
    model, revision, origin, temperature, finish_reason, on_policy = values
    return Kind(model or "-", revision or "-", origin or "-", temperature, finish_reason or "-", on_policy)


def _grouped(table: pa.Table) -> Iterable[tuple[tuple[Any, ...], int]]:
    """Every different row with its number, in order of appearance."""
    names = table.column_names
    groups = table.group_by(names, use_threads=False).aggregate([([], "count_all")])
    for row in groups.to_pylist():
        yield tuple(row[name] for name in names), row["count_all"]


def _count(counter: Counter[str], column: Any, null: str) -> None:
    for (value,), number in _grouped(pa.table({"value": column})):
        counter[value or null] += number
