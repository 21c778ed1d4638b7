"""A prompt as a page shows it: images, pairs with what differs and what is hallucinated, every candidate with its
scores and what kept it out. Pure but for ``Reader``, which reads the run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import urlencode

from pipeline.base.marks import Marks, PairKey
from pipeline.browsing.pictures import why_missing
from pipeline.pairing.config import Pair
from pipeline.pairing.kept_out import Bar, bars_of_row
from pipeline.pairing.policies import REASONS
from pipeline.pairing.recorded import recorded_rule
from pipeline.publishing.curated import key_of, keys
from pipeline.publishing.hallucinated import Truth, of_run
from pipeline.publishing.outcomes import PAIRED
from pipeline.publishing.word_diff import Mark, Piece, differences, pieces
from pipeline.running import prompt_rows
from pipeline.running.prompt_rows import PromptRow
from pipeline.running.store import Run
from reward.answers.match_answer import right

SIDES = ("chosen", "rejected")


@dataclass(frozen=True)
class ShownImage:
    """``why`` there is nothing to show, else None. ``query`` is what ``/image`` is asked."""

    query: str
    alt: str
    why: str | None


@dataclass(frozen=True)
class ShownPair:
    """One row of the pairs: two texts in pieces, or the ``reason`` why it is none, and what that ``means``. ``digest``
    tells whether the run still has the same pair when somebody marks it."""

    number: int
    policy: str
    reason: str | None
    margin: float | None = None
    places: tuple[int, int] | None = None
    sides: tuple[list[Piece], list[Piece]] = ((), ())  # type: ignore[assignment]
    scores: tuple[float | None, float | None] = (None, None)
    mark: str = ""
    digest: str = ""

    @property
    def means(self) -> str:
        return REASONS.get(self.reason or "", "")


@dataclass(frozen=True)
class ShownCandidate:
    """``roles`` says on which sides of which pairs it is; ``verdicts`` what models that were asked said of it."""

    place: int
    text: list[Piece]
    about: list[tuple[str, str]]
    roles: list[str]
    bars: tuple[Bar, ...]
    scores: list[tuple[str, float | None]]
    verdicts: list[tuple[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class ShownPrompt:
    """``error`` is of the stage that failed, ``outcome`` as in ``pipeline.publishing.outcomes``. ``run`` is a or b."""

    id: str
    run: str
    shard: int
    outcome: str
    prompt: str
    messages: list[tuple[str, str]]
    source: str
    images: list[ShownImage]
    facts: list[tuple[str, str]]
    pairs: list[ShownPair]
    candidates: list[ShownCandidate]
    error: str

    @property
    def paired(self) -> bool:
        return self.outcome == PAIRED


class Reader:
    """Prompts of the run that pages call ``name``. State: what the run's records say, as long as they stay the same."""

    def __init__(self, run: Run, name: str) -> None:
        self.run, self.name = run, name
        self._made: dict[PairKey, bool] = {}

    @cached_property
    def truth(self) -> Truth:
        return of_run(self.run)

    @cached_property
    def rule(self) -> Pair | None:
        record = self.run.record("pair")
        return recorded_rule(record.options) if record is not None else None

    def forget(self) -> None:
        """The run has other shards now, and may have another recipe."""
        self._made.clear()
        for name in ("truth", "rule"):
            self.__dict__.pop(name, None)

    def holding(self, marks: Marks, shards: Mapping[str, int]) -> Marks:
        """The marks of pairs that the run makes; ``shards`` says where prompts lie. Marks of others have no effect."""
        unknown: dict[int, set[str]] = {}
        for key in marks.keys() - self._made.keys():
            self._made[key] = False
            if key.id in shards:
                unknown.setdefault(shards[key.id], set()).add(key.id)
        for shard, ids in unknown.items():
            if self.run.has_shard("pair", shard) and self.run.has_shard("sample", shard):
                pairs, sample = self.run.read("pair", shard), self.run.read("sample", shard)
                self._made.update(dict.fromkeys(keys(pairs, sample, ids), True))
        return {key: mark for key, mark in marks.items() if self._made[key]}

    def rows(self, places: Iterable[tuple[int | None, str]]) -> dict[str, PromptRow]:
        """By id. ``places`` are (shard, id); those without a shard are not in the run."""
        ids: dict[int, list[str]] = {}
        for shard, prompt_id in places:
            if shard is not None:
                ids.setdefault(shard, []).append(prompt_id)
        return {key: row for shard, of in ids.items() for key, row in prompt_rows.read(self.run, shard, of).items()}

    def show(self, row: PromptRow, outcome: str, marks: Marks) -> ShownPrompt:
        return show(row, self.name, outcome, self.truth.marks(row), self.rule, marks)


def show(
    row: PromptRow, run: str, outcome: str, wrong: Sequence[Sequence[Mark]], rule: Pair | None, marks: Marks
) -> ShownPrompt:
    """``wrong`` are the hallucinated words of each candidate, ``rule`` is None where nothing was paired."""
    facts = row.source["facts"] or {}
    things = [_thing(thing) for thing in facts.get("objects") or ()]
    alt = f"In the picture: {', '.join(things)}." if things else f"Picture for the prompt: {row.prompt[:200]}"
    failed = [part for part in (row.source, row.sample, row.score, *row.pairs) if part and part["status"] != "ok"]
    return ShownPrompt(
        id=row.id,
        run=run,
        shard=row.shard,
        outcome=outcome,
        prompt=row.prompt,
        messages=[(message["role"], message["content"] or "") for message in row.source["prompt"] or ()],
        source=row.source["source"] or "",
        images=[
            ShownImage(urlencode({"run": run, "shard": row.shard, "id": row.id, "n": n}), alt, why_missing(image))
            for n, image in enumerate(row.source["images"] or ())
        ],
        facts=_facts(facts, things),
        pairs=[_pair(row, number, pair, wrong, marks) for number, pair in enumerate(row.pairs)],
        candidates=_candidates(row, wrong, rule),
        error=next((f"{part['error_type']}: {part['error']}" for part in failed), ""),
    )


def key_at(row: PromptRow, number: int) -> PairKey | None:
    """What the ``number``-th row of the pairs is marked by; None if it is no pair."""
    if not 0 <= number < len(row.pairs):
        return None
    return key_of(row.pairs[number], [candidate["text"] for candidate in row.candidates])


def digest(key: PairKey) -> str:
    return hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]


def _pair(
    row: PromptRow, number: int, pair: Mapping[str, Any], wrong: Sequence[Sequence[Mark]], marks: Marks
) -> ShownPair:
    policy, key = pair["policy"] or "", key_at(row, number)
    if key is None:
        return ShownPair(number, policy, pair["reason"] or pair["error_type"] or "no reason given")
    places = (pair["chosen"], pair["rejected"])
    changed = differences(key.chosen, key.rejected)
    texts = ((key.chosen, changed[0], places[0]), (key.rejected, changed[1], places[1]))
    first, second = (pieces(text, spans, wrong[place]) for text, spans, place in texts)
    scores = (pair["chosen_score"], pair["rejected_score"])
    return ShownPair(
        number, policy, pair["reason"], pair["margin"], places, (first, second), scores, marks.get(key, ""), digest(key)
    )


def _candidates(row: PromptRow, wrong: Sequence[Sequence[Mark]], rule: Pair | None) -> list[ShownCandidate]:
    scores = row.scores
    kept_out: Sequence[tuple[Bar, ...]] = [()] * len(row.candidates)
    if rule is not None:
        kept_out = bars_of_row(row.candidates, row.score, rule, row.prompt)
    roles: dict[int, list[str]] = {}
    pairs = [pair for pair in row.pairs if pair["chosen"] is not None]
    for number, pair in enumerate(pairs, start=1):
        for side in SIDES:
            roles.setdefault(pair[side], []).append(f"{side} {number}" if len(pairs) > 1 else side)
    verdicts = _verdicts(row)
    return [
        ShownCandidate(
            place,
            pieces(candidate["text"], marks=wrong[place]),
            _about(candidate),
            roles.get(place, []),
            kept_out[place],
            [(name, values[place] if place < len(values) else None) for name, values in scores.items()],
            verdicts.get(place, []),
        )
        for place, candidate in enumerate(row.candidates)
    ]


def _about(candidate: Mapping[str, Any]) -> list[tuple[str, str]]:
    parent = candidate["parent"]
    named = {
        "origin": (candidate["origin"] or "") + (f" from {parent + 1}" if parent is not None else ""),
        "model": candidate["model"],
        "revision": candidate["revision"],
        "seed": candidate["seed"],
        "temperature": candidate["temperature"],
        "tokens": candidate["n_tokens"],
        "ended by": candidate["finish_reason"],
        "on-policy": {True: "yes", False: "no"}.get(candidate["on_policy"]),
    }
    return [(name, f"{value}") for name, value in named.items() if value not in (None, "")]


def _verdicts(row: PromptRow) -> dict[int, list[tuple[str, str]]]:
    """What a judge or a claim checker said, by candidate."""
    by_candidate: dict[int, list[tuple[str, str]]] = {}
    for stage, table_row in row.verdict_rows.items():
        for verdict in table_row["verdicts"] or ():
            likely = f"P(yes) {verdict['p_yes']:.3f}" if verdict["p_yes"] is not None else None
            against = f" (against {verdict['other'] + 1})" if verdict["other"] is not None else ""
            answer = verdict["error"] or likely or verdict["answer"] or ""
            by_candidate.setdefault(verdict["candidate"], []).append(
                (f"{stage.removeprefix('ask-')}: {verdict['question']}{against}", answer)
            )
    return by_candidate


def _thing(thing: Mapping[str, Any]) -> str:
    words = " ".join([*(thing.get("attributes") or ()), thing["name"]])
    return f"{words} × {thing['count']}" if (thing["count"] or 0) > 1 else words


def _facts(facts: Mapping[str, Any], things: Sequence[str]) -> list[tuple[str, str]]:
    regions = [region["phrase"] or "" for region in facts.get("regions") or ()]
    named = {
        "objects": ", ".join(things),
        "regions": "; ".join(regions),
        "captions": " / ".join(caption or "" for caption in facts.get("captions") or ()),
        "answer": " / ".join(right(facts)),
        "kind of question": facts.get("question_type") or "",
    }
    return [(name, value) for name, value in named.items() if value]
