"""Choose, per prompt, a better and a worse answer. Pure: no model, no I/O, no randomness.

The rule is written down here, for one prompt after the other; the stage applies it through ``pair_columns``.
"""

from __future__ import annotations

import difflib
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline.config.score import Pair
from pipeline.errors import ConfigError
from pipeline.tables import OK, PAIRS, failed

Row = Mapping[str, Any]
#: Why a prompt has no pair. Every prompt without one has exactly one of these.
REASONS = ("failed", "no_valid_candidate", "tie", "below_margin", "identical", "length_gap")
LONGEST_PHRASE = 4


@dataclass(frozen=True)
class PairStage:
    spec: Pair

    name = "pair"
    version = 1
    inputs = ("sample", "score")
    schema = PAIRS
    worker = None

    def options(self) -> dict[str, Any]:
        return self.spec.model_dump(mode="json")

    def process(self, model: Any, tables: Mapping[str, pa.Table]) -> pa.Table:
        from pipeline.stages import pair_columns

        return pair_columns.make_pairs(tables["sample"], tables["score"], self.spec)

    def extras(self, table: pa.Table) -> dict[str, int]:
        return {"pairs": len(table) - table["chosen"].null_count}


def make_pairs(candidates: Sequence[Row], scores: Sequence[Row], policy: Pair) -> list[dict[str, Any]]:
    """One row of the pairs table per prompt: a pair, or the reason why there is none.

    What holds for every pair, whatever the order of the candidates: the texts differ once normalised; the chosen one's
    score is at least ``margin`` above the rejected one's; neither is empty, cut off or repetitive; their lengths in
    words differ at most by the factor ``max_length_ratio``.

    Raises:
        ConfigError: a weight names a score that no row has.
    """
    scored = {row["id"]: row for row in scores}
    check_weights(policy.weights, [score["name"] for row in scores if row["status"] == "ok" for score in row["scores"]])
    return [_pair(row, scored.get(row["id"]), policy) for row in candidates]


def combined(
    values: Mapping[str, Sequence[float | None]], weights: Mapping[str, float], count: int
) -> list[float | None]:
    """The weighted sum per candidate.

    A score that is null for every candidate does not apply to the prompt and is left out. Where it does apply, a
    candidate without a value cannot be compared with the others and gets None; so does everyone if nothing applies.

    >>> combined({"a": [1.0, 2.0], "b": [None, None], "c": [0.5, None]}, {"a": -1, "b": 1, "c": 2}, 2)
    [0.0, None]
    """
    applies = [
        (weight, values[name])
        for name, weight in sorted(weights.items())
        if weight and any(value is not None and math.isfinite(value) for value in values.get(name, ()))
    ]
    if not applies:
        return [None] * count
    return [_sum([(weight, column[i]) for weight, column in applies]) for i in range(count)]


def _sum(terms: Sequence[tuple[float, float | None]]) -> float | None:
    total = 0.0
    for weight, value in terms:
        if value is None or not math.isfinite(value):
            return None
        total += weight * value
    return total


def normalised(text: str) -> str:
    """Case folded, without punctuation, white space collapsed: texts equal in this way are the same answer.

    >>> normalised(" A sun,  and a BOAT. ")
    'a sun and a boat'
    """
    return " ".join(unicodedata.normalize("NFKC", text).translate(_PUNCTUATION).casefold().split())


class _Punctuation(dict[int, int]):
    """For ``str.translate``: a space for every punctuation mark. Filled in as characters are met."""

    def __missing__(self, code: int) -> int:
        self[code] = ord(" ") if unicodedata.category(chr(code)).startswith("P") else code
        return self[code]


_PUNCTUATION = _Punctuation()


def repeats(text: str) -> int:
    """How often a phrase of one to four words follows itself at most; 1 for a text without repetition.

    >>> repeats("a sun a sun a sun"), repeats("very very red"), repeats("a sun and a sun")
    (3, 2, 1)
    """
    words = normalised(text).split()
    most = 1 if words else 0
    for size in range(1, LONGEST_PHRASE + 1):
        run = 0  # words in a row that equal the one `size` words before
        for i in range(size, len(words)):
            run = run + 1 if words[i] == words[i - size] else 0
            most = max(most, run // size + 1)
    return most


def valid(candidate: Row, policy: Pair) -> bool:
    """Whether a text may be either side of a pair at all."""
    words = normalised(candidate["text"] or "").split()
    return (
        len(words) >= policy.min_words
        and candidate["finish_reason"] != "length"
        and repeats(candidate["text"]) <= policy.max_repeated
    )


def _pair(row: Row, scores: Row | None, policy: Pair) -> dict[str, Any]:
    for part in (row, scores):
        if part is None or part["status"] != "ok":
            status = failed(part["error_type"], part["error"]) if part else failed("no_scores", "the row has no scores")
            return {"id": row["id"], "policy": policy.policy, "reason": "failed", **status}
    assert scores is not None
    outcome = best_vs_worst(row["candidates"], {s["name"]: s["values"] for s in scores["scores"]}, policy)
    return {"id": row["id"], "policy": policy.policy, **outcome, **OK}


def best_vs_worst(
    candidates: Sequence[Row], values: Mapping[str, Sequence[float | None]], policy: Pair
) -> dict[str, Any]:
    """``{"reason": ...}``, or the columns of a pair.

    Several best (or worst) texts: the pair with the smallest difference in length, then the texts themselves, decide.
    """
    totals = combined(values, policy.weights, len(candidates))
    able = {i: total for i, total in enumerate(totals) if total is not None and valid(candidates[i], policy)}
    if len(able) < 2:
        return {"reason": "no_valid_candidate"}
    high, low = max(able.values()), min(able.values())
    texts = {i: normalised(candidates[i]["text"]) for i in able}
    if len(set(texts.values())) == 1:
        return {"reason": "identical"}
    if high == low:
        return {"reason": "tie"}
    if high < low + policy.margin:
        return {"reason": "below_margin"}
    best, worst = ([i for i, total in able.items() if total == end] for end in (high, low))
    different = [(c, r) for c in best for r in worst if texts[c] != texts[r]]
    if not different:
        return {"reason": "identical"}
    lengths = {i: len(text.split()) for i, text in texts.items()}
    close = [(c, r) for c, r in different if _ratio(lengths[c], lengths[r]) <= policy.max_length_ratio]
    if not close:
        return {"reason": "length_gap"}
    chosen, rejected = min(
        close,
        key=lambda pair: (
            abs(lengths[pair[0]] - lengths[pair[1]]),
            candidates[pair[0]]["text"],
            candidates[pair[1]]["text"],
            pair,
        ),
    )
    return {
        "chosen": chosen,
        "rejected": rejected,
        "chosen_score": high,
        "rejected_score": low,
        "margin": high - low,
    }


def _ratio(a: int, b: int) -> float:
    return max(a, b) / min(a, b)


def check_weights(weights: Iterable[str], names: Iterable[str]) -> None:
    """
    Raises:
        ConfigError: a weight names a score that is not among ``names``.
    """
    have = set(names)
    if not have:  # every row failed; there is nothing to compare with
        return
    for name in weights:
        if name not in have:
            close = difflib.get_close_matches(name, have, n=1)
            hint = f"did you mean {close[0]}?" if close else f"scores are {', '.join(sorted(have))}"
            raise ConfigError(f"pair.weights.{name}: no scorer of this run gives it", hint)
