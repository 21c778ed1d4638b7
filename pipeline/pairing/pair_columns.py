"""``pair.make_pairs`` for whole shards at once: the same rows, computed on columns.

What the rule is stands in ``pipeline.pairing.rule``; here is only how it is applied to a hundred thousand texts a
second. ``best_vs_worst`` is array operations from end to end; the other policies choose prompt by prompt, from texts
whose gates, words and totals are columns. Tests hold both equal to the rule.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.base import columns
from pipeline.base.columns import Bools, Floats, Ints
from pipeline.base.tables import OK, PAIRS, failed
from pipeline.pairing import rule as pair
from pipeline.pairing import texts
from pipeline.pairing.balance import gap, surplus
from pipeline.pairing.config import BY_ORIGIN, Pair
from pipeline.pairing.policies import REASONS, Able, Draw, choose, standardised
from pipeline.pairing.texts import Texts
from reward.text.language import NOTHING

_NO_SCORES = failed("no_scores", "the row has no scores")
Side = Literal["chosen", "rejected"]
_SIDES: tuple[Side, Side] = ("chosen", "rejected")


def make_pairs(
    sample: pa.Table, score: pa.Table, policy: Pair, source: pa.Table | None = None, seed: int = 0
) -> pa.Table:
    """The rows that ``pair.make_pairs`` gives, in the order of ``sample``. ``source`` has the prompts.

    Raises:
        ConfigError: a weight or a veto names a score that no row has.
        InputError: a score does not have one value for each candidate.
    """
    ids = columns.whole(sample["id"])
    good = score.filter(pc.equal(score["status"], "ok"))
    notes = _Notes.of(score)
    pair.check_scores(policy, pc.unique(columns.items(good["scores"], "name")).to_pylist(), notes.scorers)
    score = columns.aligned(score, ids)
    notes = _Notes.of(score)
    missing = notes.missing(policy, columns.ok(sample) & columns.ok(score))
    broken = pa.array(~columns.ok(sample))
    status = {
        name: pc.if_else(broken, sample[name], pc.if_else(pc.is_null(score["status"]), _NO_SCORES[name], score[name]))
        for name in OK
    }
    lacking = pa.array([row in missing for row in range(len(ids))], pa.bool_())
    for name, values in status.items() if missing else ():
        own = pa.array([missing.get(row, {}).get(name) for row in range(len(ids))], pa.string())
        status[name] = pc.if_else(lacking, own, columns.whole(values))
    prompts = None if source is None else columns.aligned(source.select(["id", "prompt"]), ids)["prompt"]
    candidates = _Candidates.of(ids, sample, score, prompts, policy, notes, ~columns.bools(lacking))
    made = _best_vs_worst(candidates, policy) if policy.policy == "best_vs_worst" else _chosen(candidates, policy, seed)
    outcome = _balanced(made, candidates, policy)
    of = pa.array(outcome.row)
    columns_of_rows = {
        "id": ids.take(of),
        "policy": pa.array([policy.policy] * len(of), pa.string()),
        **outcome.columns(candidates),
        **{name: values.take(of) for name, values in status.items()},
    }
    return pa.table({name: columns_of_rows[name] for name in PAIRS.names}).cast(PAIRS)


@dataclass(frozen=True)
class _Candidates:
    """The candidates of all rows, one after the other. ``fine`` are the rows that did not fail; ``able`` the candidates
    that may be a side of a pair; ``may`` says of which; ``totals`` is what they are worth, if anything is weighed."""

    ids: Any
    fine: Bools
    sizes: Ints
    row: Ints
    items: Any
    texts: Texts
    able: Bools
    may: Mapping[Side, Bools]
    totals: Floats
    weighed: bool

    @classmethod
    def of(
        cls, ids: Any, sample: pa.Table, score: pa.Table, prompts: Any, policy: Pair, notes: _Notes, whole: Bools
    ) -> _Candidates:
        """``whole`` are the rows that lack no score that is needed."""
        fine = columns.ok(sample) & columns.ok(score) & whole
        sizes = columns.counts(sample["candidates"])
        row = columns.rows(sizes)
        items = columns.items(sample["candidates"])
        found = Texts.of(pc.struct_field(items, "text"))
        asked = [NOTHING] * len(ids) if prompts is None else texts.asked(prompts, policy)
        able = fine[row] & (found.stopped(pc.struct_field(items, "finish_reason"), asked, row, policy) < 0)
        if policy.on_policy_only:
            able &= columns.bools(pc.struct_field(items, "on_policy"))
        values = _Values.of(ids, pc.if_else(pa.array(fine), columns.whole(score["scores"]), None), sizes, notes)
        weighed = any(policy.weights.values())
        totals = np.zeros(len(row))
        if weighed:
            totals, known = values.totals(policy, able)
            able &= known
        may = {side: ~values.barred(side, policy) for side in _SIDES}
        return cls(ids, fine, sizes, row, items, found, able, may, totals, weighed)

    def groups(self) -> tuple[Ints, Ints, Ints]:
        """The candidates of rows with at least two able ones, one row after the other; where each row begins among
        them; and which row that is."""
        enough = (np.bincount(self.row[self.able], minlength=len(self.sizes)) >= 2)[self.row]
        at = np.flatnonzero(self.able & enough)
        begins = np.flatnonzero(np.diff(self.row[at], prepend=-1))
        return at, begins, self.row[at][begins]

    def no_group(self) -> Ints:
        """The reason of a row that is in no group."""
        return np.where(self.fine, REASONS.index("no_valid_candidate"), REASONS.index("failed"))


@dataclass(frozen=True)
class _Outcome:
    """``row`` is the row that each outcome belongs to, ascending. ``chosen`` and ``rejected`` are places among all
    candidates, -1 where there is no pair but a ``reason``."""

    row: Ints
    chosen: Ints
    rejected: Ints
    reason: Ints

    @property
    def paired(self) -> Bools:
        return self.chosen >= 0

    def columns(self, of: _Candidates) -> dict[str, Any]:
        none, first = ~self.paired, columns.starts(of.sizes)[self.row]
        totals = [np.append(of.totals, 0.0)[at] for at in (self.chosen, self.rejected)]
        unknown = none | (not of.weighed)
        return {
            "chosen": pa.array(self.chosen - first, mask=none),
            "rejected": pa.array(self.rejected - first, mask=none),
            "chosen_score": pa.array(totals[0], mask=unknown),
            "rejected_score": pa.array(totals[1], mask=unknown),
            "margin": pa.array(totals[0] - totals[1], mask=unknown),
            "reason": pa.array(REASONS).take(pa.array(self.reason, mask=~none)),
        }


def _best_vs_worst(of: _Candidates, policy: Pair) -> _Outcome:
    row, totals, text = of.row, of.totals, of.texts
    at, begins, group_row = of.groups()
    group = columns.rows(np.diff(begins, append=len(at)))
    head, tail = (of.may[side][at] for side in _SIDES)
    reason = of.no_group()
    if not len(at):
        return _Outcome(np.arange(len(reason)), np.full(len(reason), -1), np.full(len(reason), -1), reason)
    high = np.maximum.reduceat(np.where(head, totals[at], -np.inf), begins)
    low = np.minimum.reduceat(np.where(tail, totals[at], np.inf), begins)
    same = np.maximum.reduceat(text.code[at], begins) == np.minimum.reduceat(text.code[at], begins)
    vetoed = ~np.logical_or.reduceat(head, begins) | ~np.logical_or.reduceat(tail, begins)
    codes = text.code[at]
    last, first = (np.where(head | tail, codes, other) for other in (-1, len(text.code)))
    vetoed |= np.maximum.reduceat(last, begins) == np.minimum.reduceat(first, begins)
    reason[group_row] = np.select(
        [same, vetoed, high == low, high < low + policy.margin],
        [REASONS.index(name) for name in ("identical", "vetoed", "tie", "below_margin")],
        REASONS.index("identical"),
    )
    compared = (~same & ~vetoed & (high != low) & (high >= low + policy.margin))[group]
    best, worst = (at[compared & may & (totals[at] == end[group])] for may, end in ((head, high), (tail, low)))

    # Every best text against every worst one of the same row; the first of those that may be paired, in order.
    rivals = np.bincount(row[worst], minlength=len(of.sizes))
    chosen = np.repeat(best, rivals[row[best]])
    rejected = worst[columns.ranges(columns.starts(rivals)[row[best]], rivals[row[best]])]
    different = text.code[chosen] != text.code[rejected]
    chosen, rejected = chosen[different], rejected[different]
    reason[row[chosen]] = REASONS.index("length_gap")
    short, long = np.sort([text.words[chosen], text.words[rejected]], axis=0)
    close = long / short <= policy.max_length_ratio
    chosen, rejected, apart = chosen[close], rejected[close], (long - short)[close]
    order = np.lexsort((rejected, chosen, text.rank(rejected), text.rank(chosen), apart, row[chosen]))
    taken = order[np.flatnonzero(np.diff(row[chosen][order], prepend=-1))]
    chosen, rejected = chosen[taken], rejected[taken]

    sides = np.full((2, len(reason)), -1)
    sides[:, row[chosen]] = chosen, rejected
    return _Outcome(np.arange(len(reason)), sides[0], sides[1], reason)


def _chosen(of: _Candidates, policy: Pair, seed: int) -> _Outcome:
    """What ``policies.choose`` says, prompt by prompt."""
    at, begins, group_row = of.groups()
    if policy.policy not in BY_ORIGIN:
        at, begins = _once(of, at)
    reasons = of.no_group().tolist()
    found: dict[int, list[tuple[int, int]]] = {}
    ends = np.append(begins[1:], len(at)).tolist()
    able = list(_able(of, at))
    ids = of.ids.take(pa.array(group_row)).to_pylist()
    for number, row in enumerate(group_row.tolist()):
        some = able[begins[number] : ends[number]]
        pairs = choose(some, policy, Draw(seed, ids[number]))
        if isinstance(pairs, str):
            reasons[row] = REASONS.index(pairs)
        else:
            found[row] = [(chosen.place, rejected.place) for chosen, rejected in pairs]
    first = columns.starts(of.sizes).tolist()
    rows = [
        (row, first[row] + chosen, first[row] + rejected, reason) if chosen >= 0 else (row, -1, -1, reason)
        for row, reason in enumerate(reasons)
        for chosen, rejected in found.get(row, [(-1, -1)])
    ]
    row_of, chosen, rejected, reason = np.array(rows, np.int64).reshape(-1, 4).T
    return _Outcome(row_of, chosen, rejected, reason)


def _once(of: _Candidates, at: Ints) -> tuple[Ints, Ints]:
    """Without texts that stand twice in a row and are worth the same, of which ``choose`` would take the first; but
    two of each row, so that it sees how many there are."""
    same = columns.whole(of.texts.texts.take(pa.array(at)).dictionary_encode().indices).to_numpy()
    keys = (*(of.may[side][at] for side in _SIDES), of.totals[at], same, of.row[at])
    order = np.lexsort((at, *keys))
    new = np.zeros(len(at), bool)
    new[order] = np.any([np.diff(key[order], prepend=np.nan) != 0 for key in keys], axis=0)
    begins = np.flatnonzero(np.diff(of.row[at], prepend=-1))
    new[begins] = True
    new[begins + 1] = True
    kept = at[new]
    return kept, np.flatnonzero(np.diff(of.row[kept], prepend=-1))


def _able(of: _Candidates, at: Ints) -> Iterator[Able]:
    """The candidates at these places, as the policies see them."""
    places = pa.array(at)
    index = at - columns.starts(of.sizes)[of.row[at]]
    totals = of.totals[at].tolist() if of.weighed else [None] * len(at)
    fields = (pc.struct_field(of.items, name).take(places).to_pylist() for name in ("origin", "parent", "model"))
    return map(
        Able,
        index.tolist(),
        totals,
        of.texts.texts.take(places).to_pylist(),
        of.texts.code[at].tolist(),
        of.texts.words[at].tolist(),
        *(of.may[side][at].tolist() for side in _SIDES),
        *fields,
    )


def _balanced(made: _Outcome, of: _Candidates, policy: Pair) -> _Outcome:
    if not policy.balance_length:
        return made
    at = np.flatnonzero(made.paired)
    sides = (of.texts.texts.take(pa.array(side[at])).to_pylist() for side in (made.chosen, made.rejected))
    left = at[surplus([gap(*two) for two in zip(*sides, strict=True)], policy)]
    chosen, rejected, reason = made.chosen.copy(), made.rejected.copy(), made.reason.copy()
    chosen[left] = rejected[left] = -1
    reason[left] = REASONS.index("length_balance")
    return _Outcome(made.row, chosen, rejected, reason)


@dataclass(frozen=True)
class _Notes:
    """What scorers do not know: (row, ``pipeline.base.tables.UNKNOWN``)."""

    notes: Sequence[tuple[int, Mapping[str, Any]]]

    @classmethod
    def of(cls, score: pa.Table) -> _Notes:
        if "unknown" not in score.column_names:  # a table of an earlier version
            return cls(())
        row = columns.rows(columns.counts(score["unknown"])).tolist()
        return cls(list(zip(row, columns.items(score["unknown"]).to_pylist(), strict=True)))

    @property
    def scorers(self) -> set[str]:
        return {note["scorer"] for _, note in self.notes}

    def open(self, name: str, rows: int) -> Bools:
        """In which rows a null of the score is a value that is not known."""
        found = np.zeros(rows, bool)
        found[[row for row, note in self.notes if pair.is_open(name, (note["scorer"],))]] = True
        return found

    def missing(self, policy: Pair, fine: Bools) -> dict[int, dict[str, Any]]:
        """``pair.missing`` of the rows that are ``fine`` otherwise."""
        by_row: dict[int, list[Mapping[str, Any]]] = {}
        for row, note in self.notes:
            if fine[row]:
                by_row.setdefault(row, []).append(note)
        found = ((row, pair.missing(notes, policy)) for row, notes in by_row.items())
        return {row: status for row, status in found if status is not None}


@dataclass(frozen=True)
class _Values:
    """Every score of every candidate: ``columns.Scored`` with its values at the places of the candidates."""

    scored: columns.Scored
    numbers: Floats
    sizes: Ints
    notes: _Notes

    @classmethod
    def of(cls, ids: Any, scores: Any, sizes: Ints, notes: _Notes) -> _Values:
        scored = columns.Scored.of(ids, scores, sizes)
        return cls(scored, columns.floats(scored.values), sizes, notes)

    def column(self, name: str) -> Floats:
        """The values of one score, nan where there is none."""
        at = np.flatnonzero(columns.bools(pc.equal(self.scored.name, name)))
        lengths = self.sizes[self.scored.row[at]]
        first = columns.starts(self.sizes)
        value = np.full(int(first[-1]), np.nan)
        to, of = (columns.ranges(begins, lengths) for begins in (first[self.scored.row[at]], self.scored.begins[at]))
        value[to] = self.numbers[of]
        return value

    def totals(self, policy: Pair, able: Bools) -> tuple[Floats, Bools]:
        """``pair.totals`` of every candidate, and whether it has one."""
        row = columns.rows(self.sizes)
        known, some = np.ones(len(row), bool), np.zeros(len(self.sizes), bool)
        terms = []
        for name, weight in sorted(policy.weights.items()):
            if not weight:
                continue
            value = self.column(name)
            finite = np.isfinite(value)
            applies = np.bincount(row[finite], minlength=len(self.sizes)) > 0
            applies |= self.notes.open(name, len(self.sizes))
            terms.append((weight, value, applies[row] & finite))
            known &= finite | ~applies[row]
            some |= applies
        known &= some[row]
        total = np.zeros(len(row))
        for weight, value, there in terms:
            if policy.standardise:
                value = _standardised(value, there & known & able, row)
            total += np.where(there, weight * value, 0.0)
        return total, known

    def barred(self, side: Side, policy: Pair) -> Bools:
        """Which candidates a veto keeps from a side of a pair."""
        result = np.zeros(int(self.sizes.sum()), bool)
        for name, veto in policy.vetoes.items():
            if veto.bars in (side, "both"):
                value = self.column(name)
                result |= np.isnan(value) & self.notes.open(name, len(self.sizes))[columns.rows(self.sizes)]
                result |= value > (np.inf if veto.above is None else veto.above)
                result |= value < (-np.inf if veto.below is None else veto.below)
        return result


def _standardised(values: Floats, among: Bools, row: Ints) -> Floats:
    """``policies.standardised`` of the values of each row that are ``among`` those that count; 0 for the others."""
    result = np.zeros(len(values))
    at = np.flatnonzero(among)
    begins = np.flatnonzero(np.diff(row[at], prepend=-1)).tolist()
    numbers = values[at].tolist()
    found: list[float] = []
    for begin, end in pairwise([*begins, len(numbers)]):
        found += standardised(numbers[begin:end])
    result[at] = found
    return result
