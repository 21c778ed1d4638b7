"""Choose, per prompt, better and worse answers. Pure: no model, no I/O; chance is a hash of seed and prompt.

What
stops a text is in ``reward.gates``, which texts meet in ``policies``, what is left out at the end in ``balance``.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache as cache
from typing import Any, Literal

from pipeline.base.errors import ConfigError
from pipeline.base.tables import OK, error_status
from pipeline.pairing.balance import gap, surplus
from pipeline.pairing.config import Pair
from pipeline.pairing.policies import Able, Draw, choose, standardise
from pipeline.pairing.rounding import without_rounding
from reward.gates import normal_text, stopping_gate
from reward.scorers.protocol import gives
from reward.text.language import NOTHING, AnswerLanguage, answer_language
from reward.text.same_text import identity

Row = Mapping[str, Any]
Worth = list[float | None]
#: How many texts and prompts what was found of them is kept for: a shard's, where each is another.
_KEPT = 1 << 14
#: What a text can be worth: of more, the distance of two might be no number.
_MOST = 1e300


def make_pairs(
    candidates: Sequence[Row],
    scores: Sequence[Row],
    policy: Pair,
    prompts: Mapping[str, str] | None = None,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """The rows of the pairs table: for each prompt its pairs, or one row with the reason why there is none.

    ``prompts`` maps an id to what was asked. What holds for every pair, whatever the order of the candidates, is said
    by ``policies.choose``; neither text is stopped by a gate. A pair that ``balance_length`` leaves out stays as a row
    with the reason ``length_balance``.

    Raises:
        ConfigError: a weight or a veto names a score that no row has.
    """
    scored = {row["id"]: row for row in scores}
    good = [row for row in scores if row["status"] == "ok"]
    unknown = {note["scorer"] for row in good for note in row.get("unknown") or ()}
    check_scores(policy, [score["name"] for row in good for score in row["scores"]], unknown)
    rows: list[dict[str, Any]] = []
    for row in candidates:
        rows += _rows(row, scored.get(row["id"]), policy, (prompts or {}).get(row["id"], ""), seed)
    texts = {row["id"]: [candidate["text"] for candidate in row["candidates"] or ()] for row in candidates}
    made = [i for i, row in enumerate(rows) if row.get("chosen") is not None]
    gaps = [gap(*(texts[rows[i]["id"]][rows[i][side]] for side in ("chosen", "rejected"))) for i in made]
    for place in surplus(gaps, policy):
        row = rows[made[place]]
        rows[made[place]] = {"id": row["id"], "policy": row["policy"], "reason": "length_balance", **OK}
    return rows


def combine(
    values: Mapping[str, Sequence[float | None]],
    weights: Mapping[str, float],
    count: int,
    unknown: Collection[str] = (),
) -> list[float | None]:
    """The weighted sum per candidate.

    A score that is null for every candidate does not apply to the prompt and is left out, unless its scorer is among
    ``unknown``: those that do not know a value here. Where a score does apply, a candidate without a value cannot be
    compared with the others and gets None; so does everyone if nothing applies.

    >>> combine({"a": [1.0, 2.0], "b": [None, None], "c": [0.5, None]}, {"a": -1, "b": 1, "c": 2}, 2)
    [0.0, None]
    >>> combine({"a": [1.0], "claims.true": [None]}, {"a": 1, "claims.true": 1}, 1, {"claims"})
    [None]
    """
    terms = applying(values, weights, count, unknown)
    return [_sum([(weight, column[i]) for weight, column in terms]) if terms else None for i in range(count)]


def applying(
    values: Mapping[str, Sequence[float | None]], weights: Mapping[str, float], count: int, unknown: Collection[str]
) -> list[tuple[float, Sequence[float | None]]]:
    """Weight and values of the scores that apply to the prompt."""
    return [
        (weight, values.get(name) or [None] * count)
        for name, weight in sorted(weights.items())
        if weight
        and (
            any(value is not None and math.isfinite(value) for value in values.get(name, ())) or is_open(name, unknown)
        )
    ]


def is_open(name: str, scorers: Collection[str]) -> bool:
    """Whether one of these scorers gives the score."""
    return any(gives(scorer, name) for scorer in scorers)


def totals(
    values: Mapping[str, Sequence[float | None]],
    policy: Pair,
    able: Sequence[int],
    count: int,
    unknown: Collection[str] = (),
) -> Worth:
    """What each candidate is worth; None if it cannot be compared. With ``standardise`` that is relative to the
    candidates ``able`` (those that nothing else bars) that can be compared. Totals that differ by rounding alone are
    the same."""
    plain = combine(values, policy.weights, count, unknown)
    if not policy.standardise:
        return without_rounding(plain)
    among = [i for i in able if plain[i] is not None]
    sums: list[float | None] = [None] * count
    terms = applying(values, policy.weights, count, unknown) if among else []
    columns = [(weight, standardise([column[i] or 0.0 for i in among])) for weight, column in terms]
    for place, i in enumerate(among):
        sums[i] = _sum([(weight, column[place]) for weight, column in columns])
    return without_rounding(sums)


def _sum(terms: Sequence[tuple[float, float | None]]) -> float | None:
    total = 0.0
    for weight, value in terms:
        if value is None or not math.isfinite(value):
            return None
        total += weight * value
    return total if abs(total) <= _MOST else None


def valid(candidate: Row, policy: Pair, prompt: str = "") -> bool:
    """Whether a text may be either side of a pair at all."""
    if policy.on_policy_only and not candidate.get("on_policy"):
        return False
    return stops(candidate["text"], candidate["finish_reason"], policy, prompt) is None


def stops(text: str | None, finish_reason: str | None, policy: Pair, prompt: str = "") -> str | None:
    """The gate that keeps a text from being a side of a pair, one of ``reward.gates.GATES``; None if none does."""
    wanted = answer_language(prompt) if policy.gates.read_prompts else NOTHING
    return _gate(text, finish_reason == "length", wanted, policy.min_words, policy.max_repeated, policy.gates.skip)


@cache(maxsize=_KEPT)
def _gate(
    text: str | None, cut: bool, language: AnswerLanguage, min_words: int, max_repeated: int, skip: frozenset[str]
) -> str | None:
    """``reward.gates.stopping_gate``, once for texts that are given again and again."""
    reason = "length" if cut else None
    return stopping_gate(text, reason, language, min_words=min_words, max_repeated=max_repeated, skip=skip)


@cache(maxsize=_KEPT)
def _identity(text: str) -> tuple[str, int]:
    """With the number of words."""
    return identity(text), len(normal_text(text).split())


def _rows(row: Row, scores: Row | None, policy: Pair, prompt: str, seed: int) -> list[dict[str, Any]]:
    base = {"id": row["id"], "policy": policy.policy}
    for part in (row, scores):
        if part is None or part["status"] != "ok":
            why = (part["error_type"], part["error"]) if part else ("no_scores", "the row has no scores")
            return [{**base, "reason": "failed", **error_status(*why)}]
    assert scores is not None
    notes = scores.get("unknown") or ()
    if (broken := missing(notes, policy)) is not None:
        return [{**base, "reason": "failed", **broken}]
    values = {s["name"]: s["values"] for s in scores["scores"]}
    unknown = {note["scorer"] for note in notes}
    pairs = choose(able(row["candidates"], values, policy, prompt, unknown), policy, Draw(seed, row["id"]))
    if isinstance(pairs, str):
        return [{**base, "reason": pairs, **OK}]
    return [{**base, **_columns(chosen, rejected), **OK} for chosen, rejected in pairs]


def _columns(chosen: Able, rejected: Able) -> dict[str, Any]:
    margin = None if chosen.total is None or rejected.total is None else chosen.total - rejected.total
    return {
        "chosen": chosen.place,
        "rejected": rejected.place,
        "chosen_score": chosen.total,
        "rejected_score": rejected.total,
        "margin": margin,
    }


def missing(notes: Iterable[Row], policy: Pair) -> dict[str, Any] | None:
    """The status of a row one of whose scorers failed, if a score of it is weighed or has a veto."""
    for note in notes:
        if note["failed"] and any(gives(note["scorer"], name) for name in policy.deciding_scores):
            return error_status(note["error_type"], f"{note['scorer']}: {note['error']}")
    return None


def able(
    candidates: Sequence[Row],
    values: Mapping[str, Sequence[float | None]],
    policy: Pair,
    prompt: str = "",
    unknown: Collection[str] = (),
) -> list[Able]:
    """The candidates that may be a side of a pair, with what they are worth."""
    passing = [i for i, candidate in enumerate(candidates) if valid(candidate, policy, prompt)]
    weighed = any(policy.weights.values())
    worth = totals(values, policy, passing, len(candidates), unknown) if weighed else [None] * len(candidates)
    entries = []
    for i in passing:
        if weighed and worth[i] is None:
            continue
        candidate = candidates[i]
        entries.append(
            Able(
                i,
                worth[i],
                candidate["text"],
                *_identity(candidate["text"]),
                may_be_chosen=not is_barred("chosen", i, values, policy, unknown),
                may_be_rejected=not is_barred("rejected", i, values, policy, unknown),
                origin=candidate.get("origin"),
                parent=candidate.get("parent"),
                model=candidate.get("model"),
            )
        )
    return entries


def is_barred(
    side: Literal["chosen", "rejected"],
    index: int,
    values: Mapping[str, Sequence[float | None]],
    policy: Pair,
    unknown: Collection[str] = (),
) -> bool:
    """Whether a veto keeps a candidate from a side of a pair; a score that does not apply to it bars nothing, and one
    that is not known keeps it from where it might be barred."""
    for name, veto in policy.vetoes.items():
        value = values[name][index] if name in values else None
        if value is None and is_open(name, unknown) and veto.bars in (side, "both"):
            return True
        if veto.bar(side, value):
            return True
    return False


def check_scores(policy: Pair, names: Iterable[str], unknown: Collection[str] = ()) -> None:
    """
    Raises:
        ConfigError: a weight or a veto names a score that is not among ``names``, nor one of the scorers ``unknown``.
    """
    have = set(names)
    if not have:  # every row failed; there is nothing to compare with
        return
    for key, group in (("weights", policy.weights), ("vetoes", policy.vetoes)):
        for name in group:
            if name not in have and not is_open(name, unknown):
                close = difflib.get_close_matches(name, have, n=1)
                hint = f"did you mean {close[0]}?" if close else f"scores are {', '.join(sorted(have))}"
                raise ConfigError(f"pair.{key}.{name}: no scorer of this run gives it", hint)
