"""Why a candidate could not be in a pair, or not on one side of it: for people who look at one."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pipeline.pairing.config import Pair, Veto
from pipeline.pairing.rule import applying, is_barred, is_open, stops, totals, valid

#: What each gate stops.
GATE_REASONS: Mapping[str, str] = {
    "empty": "it holds no word",
    "too_short": "it has too few words",
    "leaked_template": "a mark or a turn of a chat template stands in it",
    "repetition": "a phrase follows itself, or most sentences are copies",
    "refusal": "it declines to answer, or says that there is no image",
    "wrong_script": "it is in another script than the prompt",
    "wrong_language": "it is in another language than the prompt",
    "cut_off": "it was cut at max_tokens, or breaks off in a clause",
}


class Bar(NamedTuple):
    """``kind`` is gate, policy, null or veto, ``name`` the gate or the score; ``side`` is chosen, rejected or both."""

    kind: str
    name: str
    reason: str
    side: str = "both"


def bars(
    candidates: Sequence[Mapping[str, Any]],
    values: Mapping[str, Sequence[float | None]],
    rule: Pair,
    prompt: str = "",
    unknown: Mapping[str, str] | None = None,
) -> list[tuple[Bar, ...]]:
    """For each candidate what kept it out, by the rule that pairs were made with; nothing for one that was free.

    ``values`` are the scores by name, one for each candidate. ``unknown`` maps a scorer that could not tell everything
    to its reason.

    >>> rule = Pair(weights={"clip.cosine": 1.0})
    >>> texts = [{"text": "A dog.", "finish_reason": "stop"}, {"text": "...", "finish_reason": "stop"}]
    >>> [[bar.name for bar in of_text] for of_text in bars(texts, {"clip.cosine": [None, 0.3]}, rule)]
    [['clip.cosine'], ['empty']]
    """
    notes = unknown or {}
    passing = [i for i, candidate in enumerate(candidates) if valid(candidate, rule, prompt)]
    worth = totals(values, rule, passing, len(candidates), notes)
    return [tuple(_bars(i, candidate, values, worth[i], rule, prompt, notes)) for i, candidate in enumerate(candidates)]


def bars_of_row(
    candidates: Sequence[Mapping[str, Any]], score: Mapping[str, Any] | None, rule: Pair, prompt: str = ""
) -> list[tuple[Bar, ...]]:
    """``bars`` of the candidates of a prompt and its row of the score table. Where that is missing or failed, only the
    gates can tell."""
    row = score or {}
    scored = row.get("status") == "ok"
    values = {entry["name"]: entry["values"] for entry in row.get("scores") or ()}
    notes = {note["scorer"]: f"{note['error_type']}: {note['error']}" for note in row.get("unknown") or ()}
    applied = rule if scored else rule.model_copy(update={"weights": {}, "vetoes": {}})
    return bars(candidates, values, applied, prompt, notes)


def _bars(
    index: int,
    candidate: Mapping[str, Any],
    values: Mapping[str, Sequence[float | None]],
    worth: float | None,
    rule: Pair,
    prompt: str,
    notes: Mapping[str, str],
) -> Iterator[Bar]:
    if rule.on_policy_only and not candidate.get("on_policy"):
        yield Bar("policy", "on_policy_only", "the model that is to be trained did not write it")
    gate = stops(candidate["text"], candidate["finish_reason"], rule, prompt)
    if gate is not None:
        yield Bar("gate", gate, GATE_REASONS.get(gate, gate))
    elif worth is None and any(rule.weights.values()):
        yield from _nulls(index, values, rule, notes)
    for side in ("chosen", "rejected"):
        if is_barred(side, index, values, rule, notes):  # type: ignore[arg-type]
            name, veto = next((name, veto) for name, veto in rule.vetoes.items()
                              if is_barred(side, index, values, _only(rule, name), notes))  # type: ignore[arg-type]  # fmt: skip
            value = values[name][index] if name in values else None
            yield Bar("veto", name, _veto_reason(name, veto, value, notes), side)


def _nulls(
    index: int, values: Mapping[str, Sequence[float | None]], rule: Pair, notes: Mapping[str, str]
) -> Iterator[Bar]:
    if not applying(values, rule.weights, 0, notes):
        names = ", ".join(sorted(name for name, weight in rule.weights.items() if weight))
        yield Bar("null", names, "no score that is weighed applies to this prompt")
    for name in sorted(name for name, weight in rule.weights.items() if weight):
        value = values[name][index] if index < len(values.get(name, ())) else None
        given = any(other is not None for other in values.get(name, ()))
        if (value is None or not math.isfinite(value)) and (given or is_open(name, notes)):
            yield Bar("null", name, f"it has no value{_scorer_note(name, notes)}")


def _veto_reason(name: str, veto: Veto, value: float | None, notes: Mapping[str, str]) -> str:
    if value is None:
        return f"not known{_scorer_note(name, notes)}"
    bound = f"above {veto.above:g}" if veto.above is not None and value > veto.above else f"below {veto.below or 0:g}"
    return f"{value:.4g} is {bound}"


def _scorer_note(name: str, notes: Mapping[str, str]) -> str:
    """What its scorer says of what it does not know."""
    return next((f": {note}" for scorer, note in notes.items() if is_open(name, [scorer]) and note), "")


def _only(rule: Pair, veto: str) -> Pair:
    return rule.model_copy(update={"vetoes": {veto: rule.vetoes[veto]}})


def sides(of_candidate: Collection[Bar]) -> str:
    """Where it may not be: ``chosen``, ``rejected``, ``both``, or nothing.

    >>> sides([Bar("veto", "a", "", "chosen"), Bar("veto", "b", "", "rejected")]), sides([])
    ('both', '')
    """
    barred_sides = {bar.side for bar in of_candidate}
    return "both" if "both" in barred_sides or len(barred_sides) > 1 else next(iter(barred_sides), "")
