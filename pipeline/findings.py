"""What a run directory shows: what became of every prompt, how the scores are spread, which texts were paired.

Read from the run's own tables, shard by shard, in memory that does not grow with the run; the data card and the report
are views of the result. Every count is exact. So is what the scores' values give (histograms, means, medians) as long
as a score has at most ``pipeline.tally.LIMIT`` different values; beyond that a value counts as the middle of a cell
narrower than a ten-thousandth of the score's range. The number of seeds is an estimate beyond the same limit. Sources
beyond the first ``MOST_SOURCES`` are counted together. Imports no torch.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import columns, files, images
from pipeline.columns import Ints
from pipeline.errors import InputError
from pipeline.store import Record, Run
from pipeline.tables import CANDIDATES, PAIRS, SCORES
from pipeline.tally import Distinct, Tally

#: The stages whose tables are read, in order. A prompt's failure is charged to the first that reports one.
STAGES = ("source", "sample", "score", "pair")
#: Every step that may leave a record, in the order in which they run.
STEPS = ("source", "sample", "score", "pair", "publish", "eval-source", "eval-before", "train", "eval-after")
#: How the folders of the models begin whose answers ``sample`` holds, where there are several.
OF_ONE_MODEL = "sample-"
#: Rows that the source left out, with a ``reason``.
DROPPED = "dropped"
#: Different sources that are told apart.
MOST_SOURCES = 1000
OTHER_SOURCES = "(others)"
PAIRED = "paired"
UNFINISHED = "not finished"


@dataclass(frozen=True, slots=True)
class Example:
    """One preference pair with everything that explains it. ``scores`` maps a name to (chosen, rejected)."""

    id: str
    source: str
    prompt: str
    facts: Mapping[str, Any] | None
    images: tuple[bytes, ...]
    chosen: Mapping[str, Any]
    rejected: Mapping[str, Any]
    policy: str
    margin: float | None
    scores: Mapping[str, tuple[float | None, float | None]]

    @property
    def is_question(self) -> bool:
        return bool(self.facts) and (self.facts or {}).get("answer") is not None


class Kind(NamedTuple):
    """What a text has in common with others. ``temperature`` and ``on_policy`` are None where nobody sampled it."""

    model: str
    revision: str
    origin: str
    temperature: float | None
    finish_reason: str
    on_policy: bool | None


@dataclass(slots=True)
class Spread:
    """The values of one score over all candidates and over the chosen and rejected ones. Nulls, and what is not a
    finite number, are only counted."""

    version: str
    every: Tally = field(default_factory=Tally)
    chosen: Tally = field(default_factory=Tally)
    rejected: Tally = field(default_factory=Tally)
    nulls: int = 0


@dataclass(slots=True)
class Lengths:
    """Words (what white space separates) of the chosen and the rejected text of each pair, and how many more the
    chosen one has."""

    chosen: Tally = field(default_factory=Tally)
    rejected: Tally = field(default_factory=Tally)
    difference: Tally = field(default_factory=Tally)
    longer: int = 0
    shorter: int = 0
    equal: int = 0

    def add(self, chosen: Sequence[str], rejected: Sequence[str]) -> None:
        a, b = (np.array([len(text.split()) for text in texts], np.float64) for texts in (chosen, rejected))
        self.chosen.add(a)
        self.rejected.add(b)
        self.difference.add(a - b)
        self.longer += int((a > b).sum())
        self.shorter += int((a < b).sum())
        self.equal += int((a == b).sum())


@dataclass(frozen=True, slots=True)
class Findings:
    """``outcomes`` holds exactly one entry per prompt: ``"paired"``, a drop reason, a failure, or ``"not finished"``.

    ``failures`` is keyed by (stage, error type) and holds (count, one message). ``texts`` counts candidates, ``paired``
    the (chosen, rejected) texts of pairs. ``seeds`` is the number of different ones, an estimate without
    ``seeds_exact``. ``dropped`` counts the reasons for which the source left rows out. ``stages`` holds the record of
    each step that started, ``shards`` how many it has finished.
    """

    prompts: int
    candidates: int
    pairs: int
    outcomes: Counter[str]
    failures: Mapping[tuple[str, str], tuple[int, str]]
    texts: Counter[Kind]
    paired: Counter[tuple[Kind, Kind]]
    seeds: int
    seeds_exact: bool
    policies: Counter[str]
    sources: Counter[str]
    dropped: Counter[str]
    scores: Mapping[str, Spread]
    lengths: Lengths
    examples: Sequence[Example]
    stages: Mapping[str, Record]
    shards: Mapping[str, int]

    @property
    def models(self) -> Counter[tuple[str, str]]:
        """Candidates by model and revision."""
        return self._by("model", "revision")

    @property
    def finish_reasons(self) -> Counter[str]:
        return self._by("finish_reason")

    @property
    def origins(self) -> Counter[str]:
        return self._by("origin")

    @property
    def completion(self) -> float:
        """Share of prompts whose outcome is known."""
        return 1 - self.outcomes[UNFINISHED] / self.prompts if self.prompts else 0.0

    @property
    def longer_wins(self) -> float | None:
        """Of the pairs whose two texts differ in words, the share in which the chosen one is longer."""
        unequal = self.lengths.longer + self.lengths.shorter
        return self.lengths.longer / unequal if unequal else None

    def _by(self, *names: str) -> Counter[Any]:
        found: Counter[Any] = Counter()
        for kind, number in self.texts.items():
            values = tuple(getattr(kind, name) for name in names)
            found[values if len(names) > 1 else values[0]] += number
        return found


def collect(run_dir: Path, examples: int = 24, with_images: bool = True) -> Findings:
    """Read the tables of ``run_dir``; stages that have not run yet are simply missing.

    ``examples`` pairs are drawn by a hash of their id, so the draw is fixed and nobody's choice; two thirds of them
    answer open prompts, if there are that many.

    Raises:
        InputError: there is no ``source`` table, or a row refers to a candidate that does not exist.
    """
    run = Run(run_dir)
    shards = {stage: run.shards(stage) for stage in STAGES}
    if not shards["source"]:
        raise InputError(f"{run_dir} has no source/data-*.arrow", "give the directory of a run that has been started")
    reader = _Reader(examples)
    for shard in shards["source"]:
        reader.read(
            {stage: run.read(stage, shard) if shard in of_stage else None for stage, of_stage in shards.items()}, shard
        )
    drawn = reader.drawn(examples)
    if with_images:
        drawn = list(_with_images(run, drawn))
    records = {step: run.record(step) for step in _steps(run)}
    return Findings(
        prompts=reader.prompts,
        candidates=reader.texts.total(),
        pairs=reader.paired.total(),
        outcomes=reader.outcomes,
        failures={key: (number, reader.messages[key]) for key, number in sorted(reader.failures.items())},
        texts=reader.texts,
        paired=reader.paired,
        seeds=reader.seeds.estimate,
        seeds_exact=reader.seeds.exact,
        policies=reader.policies,
        sources=reader.sources,
        dropped=_dropped(run),
        scores=dict(sorted(reader.scores.items())),
        lengths=reader.lengths,
        examples=tuple(example for _, example in drawn),
        stages={stage: record for stage, record in records.items() if record is not None},
        shards={step: len(run.shards(step)) for step in records},
    )


def _steps(run: Run) -> list[str]:
    """The steps of this run, each model's sampling before ``sample``."""
    of_models = [name for name in files.names(run.path) if name.startswith(OF_ONE_MODEL)]
    at = STEPS.index("sample")
    return [*STEPS[:at], *of_models, *STEPS[at:]]


def _dropped(run: Run) -> Counter[str]:
    reasons: Counter[str] = Counter()
    for shard in run.shards(DROPPED):
        _count(reasons, run.read(DROPPED, shard)["reason"], "-")
    return reasons


class _Reader:
    """The running totals of ``collect``."""

    def __init__(self, examples: int) -> None:
        self.prompts = 0
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
        self._examples = examples
        self._kept: dict[bool, list[tuple[int, int, int, Example]]] = {True: [], False: []}
        self._ticket = count()

    def read(self, tables: Mapping[str, pa.Table | None], shard: int) -> None:
        """One shard of each stage; None where the stage has not got there yet."""
        source = tables["source"]
        assert source is not None
        ids = columns.whole(source["id"])
        sample, score = (
            columns.aligned(table if table is not None else schema.empty_table(), ids)
            for table, schema in ((tables["sample"], CANDIDATES), (tables["score"], SCORES))
        )
        pairs = tables["pair"] if tables["pair"] is not None else PAIRS.empty_table()
        # Every pair belongs to a prompt; in their order, and that of the pairs of each.
        prompt = pc.index_in(columns.whole(pairs["id"]), value_set=ids)
        order = pc.sort_indices(pa.table({"prompt": prompt}), [("prompt", "ascending")]).slice(
            0, len(prompt) - prompt.null_count
        )
        pairs, prompt = pairs.take(order), columns.ints(prompt.take(order), -1)

        sizes = columns.counts(sample["candidates"])
        scored = columns.Scored.of(ids, score["scores"], sizes)
        self.prompts += len(ids)
        self._count_outcomes({"source": source, "sample": sample, "score": score}, pairs, prompt)
        texts = columns.items(sample["candidates"])
        self._count_texts(texts)
        self._count_scores(scored, sizes)
        made = np.flatnonzero(columns.ok(pairs) & columns.bools(pairs["chosen"].is_valid()))
        self._count_pairs(
            _Shard(shard, source, sample, ids, sizes, texts, scored), pairs.take(pa.array(made)), prompt[made]
        )

    def drawn(self, examples: int) -> list[tuple[int, Example]]:
        """The examples with the shard they come from, smallest hash first; open prompts before questions."""
        open_prompts, questions = (
            [(shard, example) for _, _, shard, example in sorted(self._kept[kind], reverse=True)]
            for kind in (False, True)
        )
        of_open = max(examples - len(questions), -(-examples * 2 // 3))
        taken = open_prompts[:of_open]
        return taken + questions[: examples - len(taken)]

    def _count_outcomes(self, tables: Mapping[str, pa.Table], pairs: pa.Table, prompt: Ints) -> None:
        """``tables`` are aligned to the prompts; ``prompt`` is where each pair belongs, ascending."""
        left = np.ones(len(tables["source"]), bool)
        first = np.full(len(left), -1)  # the pair that tells why there is none
        broken = np.flatnonzero(columns.bools(pc.not_equal(pairs["status"], "ok")))
        for rows in (np.arange(len(prompt)), broken):
            first[prompt[rows][::-1]] = rows[::-1]
        failed = {stage: columns.bools(pc.not_equal(table["status"], "ok")) for stage, table in tables.items()}
        failed["pair"] = np.bincount(prompt[broken], minlength=len(left)) > 0
        for stage, bad in failed.items():
            for row in np.flatnonzero(left & bad).tolist():
                table, at = (pairs, first[row]) if stage == "pair" else (tables[stage], row)
                self._count_failure(stage, table["error_type"][at].as_py(), table["error"][at].as_py())
            left &= ~bad
        paired = np.bincount(prompt[columns.bools(pairs["chosen"].is_valid())], minlength=len(left)) > 0
        self.outcomes += Counter({PAIRED: int((left & paired).sum()), UNFINISHED: int((left & (first < 0)).sum())})
        _count(self.outcomes, pairs["reason"].take(pa.array(first[left & ~paired & (first >= 0)])), "no reason given")

    def _count_failure(self, stage: str, error_type: str | None, error: str | None) -> None:
        key = (stage, error_type or "unknown")
        self.failures[key] += 1
        self.messages.setdefault(key, error or "")
        self.outcomes[f"failed in {stage}: {key[1]}"] += 1

    def _count_texts(self, texts: Any) -> None:
        kinds = pa.table({name: pc.struct_field(texts, name) for name in Kind._fields})
        for values, number in _grouped(kinds):
            self.texts[_kind(values)] += number
        self.seeds.add(pc.struct_field(texts, "seed").drop_null().to_numpy())

    def _count_scores(self, scored: columns.Scored, sizes: Ints) -> None:
        numbers = columns.floats(scored.values)
        for name in pc.unique(scored.name).to_pylist():
            at = np.flatnonzero(columns.bools(pc.equal(scored.name, name)))
            if name not in self.scores:
                self.scores[name] = Spread(scored.version[at[0]].as_py() or "-")
            values = numbers[columns.ranges(scored.begins[at], sizes[scored.row[at]])]
            known = values[np.isfinite(values)]
            self.scores[name].every.add(known)
            self.scores[name].nulls += len(values) - len(known)

    def _count_pairs(self, of: _Shard, pairs: pa.Table, prompt: Ints) -> None:
        """``pairs`` are those of a shard that hold, ``prompt`` the row each belongs to."""
        chosen, rejected = (columns.ints(pairs[side], -1) for side in ("chosen", "rejected"))
        for wrong in np.flatnonzero(
            (np.minimum(chosen, rejected) < 0) | (np.maximum(chosen, rejected) >= of.sizes[prompt])
        )[:1]:
            raise InputError(
                f"pair, shard {of.shard}: id {of.ids[prompt[wrong]].as_py()!r} pairs candidates {chosen[wrong]} and "
                f"{rejected[wrong]} of {of.sizes[prompt[wrong]]}",
                "delete the pair directory and run the stage again",
            )
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
                found = numbers[begins[prompt][has] + side[has]]
                tally.add(found[np.isfinite(found)])
        self._draw(of, pairs, prompt)

    def _count_sources(self, sources: Any) -> None:
        # The line or row of a file at the end tells every prompt from every other one.
        named = pc.replace_substring_regex(pc.fill_null(columns.whole(sources), "-"), r":\d+$", "")
        for source, number in _grouped(pa.table({"source": named})):
            known = source[0] in self.sources or len(self.sources) < MOST_SOURCES
            self.sources[source[0] or "-" if known else OTHER_SOURCES] += number

    def _draw(self, of: _Shard, pairs: pa.Table, prompt: Ints) -> None:
        """Keep the pairs with the smallest hashes, of questions and of open prompts apart."""
        asked = columns.bools(pc.struct_field(columns.whole(of.source["facts"]), "answer").is_valid())
        ids = pairs["id"].to_pylist()
        for i, (one, row) in enumerate(zip(ids, prompt.tolist(), strict=True)):
            # A heap of the smallest hashes: negated, because the largest of those kept has to go first.
            draw = -int.from_bytes(hashlib.sha256(f"example:{one}".encode()).digest()[:8])
            entry = (draw, -next(self._ticket), of.shard)
            kept = self._kept[bool(asked[row])]
            if len(kept) < self._examples:
                heapq.heappush(kept, (*entry, of.example(pairs.slice(i, 1), row)))
            elif kept and entry > kept[0][:3]:
                heapq.heapreplace(kept, (*entry, of.example(pairs.slice(i, 1), row)))


@dataclass(frozen=True)
class _Shard:
    """The tables of a shard, aligned to its prompts, and what they are made of."""

    shard: int
    source: pa.Table
    sample: pa.Table
    ids: Any
    sizes: Ints
    texts: Any
    scored: columns.Scored

    def example(self, pair: pa.Table, row: int) -> Example:
        """``pair`` is one row, made from the prompt in row ``row``."""
        (made,) = pair.to_pylist()
        (prompt,) = self.source.slice(row, 1).select(["id", "source", "prompt", "facts"]).to_pylist()
        candidates = self.sample["candidates"][row].as_py()
        better, worse = made["chosen"], made["rejected"]
        values = self.scored.values
        scores = {
            self.scored.name[at].as_py(): tuple(values[self.scored.begins[at] + i].as_py() for i in (better, worse))
            for at in np.flatnonzero(self.scored.row == row).tolist()
        }
        return Example(
            id=prompt["id"],
            source=prompt["source"] or "",
            prompt="\n".join(message["content"] for message in prompt["prompt"] if message["role"] == "user"),
            facts=prompt["facts"],
            images=(),
            chosen=candidates[better],
            rejected=candidates[worse],
            policy=made["policy"] or "",
            margin=made["margin"],
            scores=scores,
        )


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


def _with_images(run: Run, drawn: Sequence[tuple[int, Example]]) -> Iterable[tuple[int, Example]]:
    found: dict[str, tuple[bytes, ...]] = {}
    for shard in {shard for shard, _ in drawn}:
        table = run.read("source", shard).select(["id", "images"])
        wanted = pa.array([example.id for of_shard, example in drawn if of_shard == shard])
        for row in table.filter(pc.is_in(table["id"], value_set=wanted)).to_pylist():
            found[row["id"]] = tuple(_bytes(row["images"]))
    for shard, example in drawn:
        yield shard, replace(example, images=found.get(example.id, ()))


def _bytes(of_row: Iterable[Mapping[str, Any]]) -> Iterable[bytes]:
    """Of the images that are still where they were."""
    for image in of_row:
        try:
            yield images.load(image, images.MAX_BYTES)
        except (OSError, images.BadImage):
            continue
