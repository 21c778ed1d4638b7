"""What a run directory shows: what became of every prompt, how the scores are spread, which texts were paired.

Read from the run's own tables, shard by shard; the data card and the report are views of the result. Imports no torch.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.store import Record, Run

#: The stages whose tables are read, in order. A prompt's failure is charged to the first that reports one.
STAGES = ("source", "sample", "score", "pair")
#: Every step that may leave a record, in the order in which they run.
STEPS = ("source", "sample", "score", "pair", "publish", "eval-source", "eval-before", "train", "eval-after")
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


@dataclass(slots=True)
class Spread:
    """The values of one score over all candidates and over the chosen and rejected ones; nulls are only counted."""

    version: str
    every: list[float] = field(default_factory=list)
    chosen: list[float] = field(default_factory=list)
    rejected: list[float] = field(default_factory=list)
    nulls: int = 0


@dataclass(frozen=True, slots=True)
class Findings:
    """``outcomes`` holds exactly one entry per prompt: ``"paired"``, a drop reason, a failure, or ``"not finished"``.

    ``failures`` is keyed by (stage, error type) and holds (count, one message). ``words`` are (chosen, rejected) word
    counts per pair. ``stages`` holds the record of each step that started, ``shards`` how many it has finished.
    """

    prompts: int
    candidates: int
    pairs: int
    outcomes: Counter[str]
    failures: Mapping[tuple[str, str], tuple[int, str]]
    models: Counter[tuple[str, str]]
    temperatures: Counter[float | None]
    seeds: int
    finish_reasons: Counter[str]
    origins: Counter[str]
    policies: Counter[str]
    sources: Counter[str]
    scores: Mapping[str, Spread]
    words: Sequence[tuple[int, int]]
    examples: Sequence[Example]
    stages: Mapping[str, Record]
    shards: Mapping[str, int]

    @property
    def completion(self) -> float:
        """Share of prompts whose outcome is known."""
        return 1 - self.outcomes[UNFINISHED] / self.prompts if self.prompts else 0.0

    @property
    def longer_wins(self) -> float | None:
        """Of the pairs whose two texts differ in words, the share in which the chosen one is longer."""
        unequal = [chosen > rejected for chosen, rejected in self.words if chosen != rejected]
        return sum(unequal) / len(unequal) if unequal else None


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
        reader.read({stage: run.read(stage, shard) if shard in shards[stage] else None for stage in STAGES}, shard)
    drawn = reader.drawn(examples)
    if with_images:
        drawn = list(_with_images(run, drawn))
    records = {step: run.record(step) for step in STEPS}
    return Findings(
        prompts=reader.prompts,
        candidates=reader.candidates,
        pairs=len(reader.words),
        outcomes=reader.outcomes,
        failures={key: (number, reader.messages[key]) for key, number in sorted(reader.failures.items())},
        models=reader.models,
        temperatures=reader.temperatures,
        seeds=len(reader.seeds),
        finish_reasons=reader.finish_reasons,
        origins=reader.origins,
        policies=reader.policies,
        sources=reader.sources,
        scores=dict(sorted(reader.scores.items())),
        words=tuple(reader.words),
        examples=tuple(example for _, example in drawn),
        stages={stage: record for stage, record in records.items() if record is not None},
        shards={step: len(run.shards(step)) for step in STEPS},
    )


class _Reader:
    """The running totals of ``collect``."""

    def __init__(self, examples: int) -> None:
        self.prompts = self.candidates = 0
        self.outcomes: Counter[str] = Counter()
        self.failures: Counter[tuple[str, str]] = Counter()
        self.messages: dict[tuple[str, str], str] = {}
        self.models: Counter[tuple[str, str]] = Counter()
        self.temperatures: Counter[float | None] = Counter()
        self.seeds: set[int] = set()
        self.finish_reasons: Counter[str] = Counter()
        self.origins: Counter[str] = Counter()
        self.policies: Counter[str] = Counter()
        self.sources: Counter[str] = Counter()
        self.scores: dict[str, Spread] = {}
        self.words: list[tuple[int, int]] = []
        self._examples = examples
        self._kept: dict[bool, list[tuple[int, int, int, Example]]] = {True: [], False: []}
        self._ticket = count()

    def read(self, tables: Mapping[str, pa.Table | None], shard: int) -> None:
        """One shard of each stage; None where the stage has not got there yet."""
        prompts = _rows(tables["source"], without=("images",))
        candidates = {row["id"]: row for row in _rows(tables["sample"])}
        scores = {row["id"]: row for row in _rows(tables["score"])}
        pairs: dict[str, list[dict[str, Any]]] = {}
        for row in _rows(tables["pair"]):
            pairs.setdefault(row["id"], []).append(row)
        for prompt in prompts:
            id = prompt["id"]
            self.prompts += 1
            of_prompt = candidates.get(id, {}).get("candidates") or []
            named = {score["name"]: score for score in scores.get(id, {}).get("scores") or []}
            self._count_candidates(of_prompt)
            self._count_scores(named)
            steps = ([prompt], [candidates[id]] if id in candidates else [], [scores[id]] if id in scores else [])
            self.outcomes[self._outcome((*steps, pairs.get(id, [])))] += 1
            for pair in pairs.get(id, []):
                if pair["status"] == "ok" and pair["chosen"] is not None:
                    self._count_pair(prompt, pair, of_prompt, named, shard)

    def drawn(self, examples: int) -> list[tuple[int, Example]]:
        """The examples with the shard they come from, smallest hash first; open prompts before questions."""
        open_prompts, questions = (
            [(shard, example) for _, _, shard, example in sorted(self._kept[kind], reverse=True)]
            for kind in (False, True)
        )
        of_open = max(examples - len(questions), -(-examples * 2 // 3))
        taken = open_prompts[:of_open]
        return taken + questions[: examples - len(taken)]

    def _outcome(self, steps: Sequence[Sequence[Mapping[str, Any]]]) -> str:
        for stage, rows in zip(STAGES, steps, strict=True):
            for row in rows:
                if row["status"] != "ok":
                    key = (stage, row["error_type"] or "unknown")
                    self.failures[key] += 1
                    self.messages.setdefault(key, row["error"] or "")
                    return f"failed in {stage}: {key[1]}"
        pairs = steps[-1]
        if not pairs:
            return UNFINISHED
        if any(pair["chosen"] is not None for pair in pairs):
            return PAIRED
        return str(pairs[0]["reason"] or "no reason given")

    def _count_candidates(self, candidates: Iterable[Mapping[str, Any]]) -> None:
        for candidate in candidates:
            self.candidates += 1
            self.models[candidate["model"] or "-", candidate["revision"] or "-"] += 1
            self.temperatures[candidate["temperature"]] += 1
            self.finish_reasons[candidate["finish_reason"] or "-"] += 1
            self.origins[candidate["origin"] or "-"] += 1
            self.seeds.add(candidate["seed"])

    def _count_scores(self, named: Mapping[str, Mapping[str, Any]]) -> None:
        for name, score in named.items():
            spread = self.scores.setdefault(name, Spread(score["version"] or "-"))
            known = [value for value in score["values"] if value is not None]
            spread.every += known
            spread.nulls += len(score["values"]) - len(known)

    def _count_pair(
        self,
        prompt: Mapping[str, Any],
        pair: Mapping[str, Any],
        candidates: Sequence[Mapping[str, Any]],
        named: Mapping[str, Mapping[str, Any]],
        shard: int,
    ) -> None:
        better, worse = pair["chosen"], pair["rejected"]
        if worse is None or not 0 <= max(better, worse) < len(candidates):
            raise InputError(
                f"pair, shard {shard}: id {prompt['id']!r} pairs candidates {better} and {worse} of {len(candidates)}",
                "delete the pair directory and run the stage again",
            )
        chosen, rejected = candidates[better], candidates[worse]
        self.words.append((len(chosen["text"].split()), len(rejected["text"].split())))
        self.policies[pair["policy"] or "-"] += 1
        self.sources[prompt["source"] or "-"] += 1
        both = {name: (score["values"][better], score["values"][worse]) for name, score in named.items()}
        for name, (of_chosen, of_rejected) in both.items():
            self.scores[name].chosen += [of_chosen] if of_chosen is not None else []
            self.scores[name].rejected += [of_rejected] if of_rejected is not None else []
        text = "\n".join(message["content"] for message in prompt["prompt"] if message["role"] == "user")
        example = Example(
            id=prompt["id"],
            source=prompt["source"] or "",
            prompt=text,
            facts=prompt["facts"],
            images=(),
            chosen=chosen,
            rejected=rejected,
            policy=pair["policy"] or "",
            margin=pair["margin"],
            scores=both,
        )
        # A heap of the smallest hashes: negated, because the largest of those kept has to go first.
        draw = -int.from_bytes(hashlib.sha256(f"example:{prompt['id']}".encode()).digest()[:8])
        kept = self._kept[example.is_question]
        heapq.heappush(kept, (draw, -next(self._ticket), shard, example))
        if len(kept) > self._examples:
            heapq.heappop(kept)


def _with_images(run: Run, drawn: Sequence[tuple[int, Example]]) -> Iterable[tuple[int, Example]]:
    images: dict[str, tuple[bytes, ...]] = {}
    for shard in {shard for shard, _ in drawn}:
        wanted = {example.id for of_shard, example in drawn if of_shard == shard}
        table = run.read("source", shard)
        for index, id in enumerate(table.column("id").to_pylist()):
            if id in wanted:
                images[id] = tuple(image["bytes"] for image in table.column("images")[index].as_py() if image["bytes"])
    for shard, example in drawn:
        yield shard, replace(example, images=images.get(example.id, ()))


def _rows(table: pa.Table | None, without: Sequence[str] = ()) -> list[dict[str, Any]]:
    if table is None:
        return []
    rows: list[dict[str, Any]] = table.drop_columns(list(without)).to_pylist()
    return rows
