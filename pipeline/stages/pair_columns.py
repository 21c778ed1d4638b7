"""``pair.make_pairs`` for whole shards at once: the same rows, computed on columns.

What the rule is stands in ``pipeline.stages.pair``; here is only how it is applied to a hundred thousand texts a
second. A test holds the two equal.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import columns
from pipeline.columns import Bools, Floats, Ints
from pipeline.config.score import Pair
from pipeline.stages import pair
from pipeline.tables import OK, PAIRS, failed
from reward import words

_NO_SCORES = failed("no_scores", "the row has no scores")
#: How ``pair.normalised`` takes an ASCII text apart.
_WORD = words.table(
    lambda one: "" if one.isspace() or unicodedata.category(one).startswith("P") else one.casefold(), above=True
)


def make_pairs(sample: pa.Table, score: pa.Table, policy: Pair) -> pa.Table:
    """One row per row of ``sample``, as ``pair.make_pairs`` gives.

    Raises:
        ConfigError: a weight names a score that no row has.
        InputError: a score does not have one value for each candidate.
    """
    ids = columns.whole(sample["id"])
    good = score.filter(pc.equal(score["status"], "ok"))
    pair.check_weights(policy.weights, pc.unique(columns.items(good["scores"], "name")).to_pylist())
    score = columns.aligned(score, ids)
    broken = pa.array(~columns.ok(sample))
    status = {
        name: pc.if_else(broken, sample[name], pc.if_else(pc.is_null(score["status"]), _NO_SCORES[name], score[name]))
        for name in OK
    }
    made = {
        "id": ids,
        "policy": pa.array([policy.policy] * len(ids), pa.string()),
        **_outcomes(ids, sample["candidates"], score, columns.ok(sample) & columns.ok(score), policy),
        **status,
    }
    return pa.table({name: made[name] for name in PAIRS.names}).cast(PAIRS)


def _outcomes(ids: Any, candidates: Any, score: pa.Table, fine: Bools, policy: Pair) -> dict[str, pa.Array]:
    """The columns of a pair, and ``reason``. ``fine`` are the rows that did not fail."""
    sizes = columns.counts(candidates)
    row, first = columns.rows(sizes), columns.starts(sizes)
    totals, known = _totals(ids, pc.if_else(pa.array(fine), columns.whole(score["scores"]), None), sizes, policy)
    texts = _Texts.of(columns.whole(columns.items(candidates, "text")))
    cut = columns.bools(pc.equal(columns.items(candidates, "finish_reason"), "length"))
    able = known & fine[row] & ~cut & (texts.words >= policy.min_words) & (texts.repeats <= policy.max_repeated)
    able &= (np.bincount(row[able], minlength=len(sizes)) >= 2)[row]

    # Groups: the rows with at least two able candidates, and those candidates, one row after the other.
    at = np.flatnonzero(able)
    begins = np.flatnonzero(np.diff(row[at], prepend=-1))
    group_row, group = row[at][begins], columns.rows(np.diff(begins, append=len(at)))
    high, low = np.maximum.reduceat(totals[at], begins), np.minimum.reduceat(totals[at], begins)
    same = np.maximum.reduceat(texts.code[at], begins) == np.minimum.reduceat(texts.code[at], begins)
    reason = np.where(fine, pair.REASONS.index("no_valid_candidate"), pair.REASONS.index("failed"))
    reason[group_row] = np.select(
        [same, high == low, high < low + policy.margin],
        [pair.REASONS.index(name) for name in ("identical", "tie", "below_margin")],
        pair.REASONS.index("identical"),
    )
    compared = (~same & (high != low) & (high >= low + policy.margin))[group]
    best, worst = (at[compared & (totals[at] == end[group])] for end in (high, low))

    # Every best text against every worst one of the same row; the first of those that may be paired, in order.
    rivals = np.bincount(row[worst], minlength=len(sizes))
    chosen = np.repeat(best, rivals[row[best]])
    rejected = worst[columns.ranges(columns.starts(rivals)[row[best]], rivals[row[best]])]
    different = texts.code[chosen] != texts.code[rejected]
    chosen, rejected = chosen[different], rejected[different]
    reason[row[chosen]] = pair.REASONS.index("length_gap")
    short, long = np.sort([texts.words[chosen], texts.words[rejected]], axis=0)
    close = long / short <= policy.max_length_ratio
    chosen, rejected, apart = chosen[close], rejected[close], (long - short)[close]
    order = np.lexsort((rejected, chosen, texts.rank(rejected), texts.rank(chosen), apart, row[chosen]))
    taken = order[np.flatnonzero(np.diff(row[chosen][order], prepend=-1))]
    chosen, rejected = chosen[taken], rejected[taken]

    paired = np.zeros(len(sizes), bool)
    paired[row[chosen]] = True
    place = np.cumsum(paired) - 1
    values = {
        "chosen": chosen - first[row[chosen]],
        "rejected": rejected - first[row[rejected]],
        "chosen_score": totals[chosen],
        "rejected_score": totals[rejected],
        "margin": totals[chosen] - totals[rejected],
    }
    of_row = pa.array(place, mask=~paired)
    reasons = pa.array(pair.REASONS).take(pa.array(reason, mask=paired))
    return {**{name: pa.array(value).take(of_row) for name, value in values.items()}, "reason": reasons}


def _totals(ids: Any, scores: Any, sizes: Ints, policy: Pair) -> tuple[Floats, Bools]:
    """``pair.combined`` of every candidate, and whether it has one."""
    row, first = columns.rows(sizes), columns.starts(sizes)
    scored = columns.Scored.of(ids, scores, sizes)
    numbers = columns.floats(scored.values)
    total, known = np.zeros(len(row)), np.ones(len(row), bool)
    some = np.zeros(len(sizes), bool)
    for name, weight in sorted(policy.weights.items()):
        if not weight:
            continue
        at = np.flatnonzero(columns.bools(pc.equal(scored.name, name)))
        lengths = sizes[scored.row[at]]
        value = np.full(len(row), np.nan)
        to, of = (columns.ranges(begins, lengths) for begins in (first[scored.row[at]], scored.begins[at]))
        value[to] = numbers[of]
        finite = np.isfinite(value)
        applies = np.bincount(row[finite], minlength=len(sizes)) > 0
        total += np.where(applies[row] & finite, weight * value, 0.0)
        known &= finite | ~applies[row]
        some |= applies
    return total, known & some[row]


@dataclass(frozen=True)
class _Texts:
    """Of every text: a number that equal normalised texts share, how many words it has, and ``pair.repeats``."""

    texts: Any
    code: Ints
    words: Ints
    repeats: Ints

    @classmethod
    def of(cls, texts: Any) -> _Texts:
        """``texts`` is a string array."""
        foreign = ~columns.bools(pc.fill_null(pc.string_is_ascii(texts), True))
        ascii_or_normalised = texts
        if foreign.any():
            normalised = [pair.normalised(text) for text in texts.filter(pa.array(foreign)).to_pylist()]
            ascii_or_normalised = pc.replace_with_mask(texts, pa.array(foreign), pa.array(normalised, pa.string()))
        found = words.split(ascii_or_normalised, _WORD)
        code = found.joined().dictionary_encode().indices.to_numpy()
        return cls(texts, code, found.counts, _repeats(found))

    def rank(self, at: Ints) -> Ints:
        """The order of some of the texts as they are written, by code point."""
        ranks: Ints = pc.rank(self.texts.take(pa.array(at)), tiebreaker="dense").to_numpy()
        return ranks


def _repeats(found: words.Words) -> Ints:
    most = np.minimum(found.counts, 1)
    word = found.values.dictionary_encode().indices.to_numpy()
    for size in range(1, pair.LONGEST_PHRASE + 1):
        again = np.flatnonzero((word[size:] == word[:-size]) & (found.text[size:] == found.text[:-size])) + size
        begins = np.flatnonzero(np.diff(again, prepend=-2) != 1)  # of words in a row that equal the one `size` before
        runs = np.diff(begins, append=len(again))
        np.maximum.at(most, found.text[again[begins]], runs // size + 1)
    return most
