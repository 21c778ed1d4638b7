from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.errors import ConfigError, InputError
from pipeline.base.tables import CANDIDATES, OK, PAIRS, SCORES, error_status
from pipeline.pairing.config import Pair
from pipeline.pairing.policies import REASONS
from pipeline.pairing.rule import combine, make_pairs, valid
from pipeline.pairing.stage import PairStage, pairs_of
from reward.gates import normal_text, repeats

POLICY = Pair(weights={"good": 1.0, "bad": -1.0}, margin=0.5, max_length_ratio=2.0, min_words=1, max_repeated=2)
WORDS = st.sampled_from(["sun", "Sun", "boat", "a", "...", "", "anchor,", "the"])
CANDIDATE = st.fixed_dictionaries(
    {
        "text": st.lists(WORDS, max_size=6).map(" ".join),
        "finish_reason": st.sampled_from(["stop", "stop", "stop", "length"]),
    }
)
SCORE = st.one_of(st.none(), st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0]))
ROW = st.lists(st.tuples(CANDIDATE, SCORE, SCORE), max_size=6)


def run(row: list[tuple[dict[str, Any], float | None, float | None]], policy: Pair = POLICY) -> dict[str, Any]:
    candidates = {"id": "x", "candidates": [c for c, _, _ in row], **OK}
    scores = [("good", [g for _, g, _ in row]), ("bad", [b for _, _, b in row])]
    scored = {"id": "x", "scores": [{"name": n, "version": "1", "values": v} for n, v in scores], **OK}
    (pair,) = make_pairs([candidates], [scored], policy)
    return pair


def outcome(*texts_and_scores: tuple[str, float], policy: Pair = POLICY) -> Any:
    """The two texts, or the reason."""
    row = [({"text": text, "finish_reason": "stop"}, score, None) for text, score in texts_and_scores]
    pair = run(row, policy)
    if pair.get("chosen") is None:
        return pair["reason"]
    return texts_and_scores[pair["chosen"]][0], texts_and_scores[pair["rejected"]][0]


@given(ROW, st.sampled_from([0.25, 0.5, 1.0]))
def test_what_holds_for_every_pair(row: list[Any], margin: float) -> None:
    policy = POLICY.model_copy(update={"margin": margin})
    pair = run(row, policy)
    if pair.get("chosen") is None:
        assert pair["reason"] in REASONS
        return
    assert pair.get("reason") is None
    chosen, rejected = (row[pair[side]][0] for side in ("chosen", "rejected"))
    assert normal_text(chosen["text"]) != normal_text(rejected["text"])
    assert pair["chosen_score"] >= pair["rejected_score"] + margin > pair["rejected_score"]
    totals = combine({"good": [r[1] for r in row], "bad": [r[2] for r in row]}, policy.weights, len(row))
    assert (totals[pair["chosen"]], totals[pair["rejected"]]) == (pair["chosen_score"], pair["rejected_score"])
    for candidate in (chosen, rejected):
        assert candidate["text"].strip() and candidate["finish_reason"] != "length" and repeats(candidate["text"]) <= 2
    lengths = [len(normal_text(candidate["text"]).split()) for candidate in (chosen, rejected)]
    assert max(lengths) / min(lengths) <= policy.max_length_ratio


@given(ROW, st.randoms(use_true_random=False))
def test_the_order_of_candidates_does_not_matter(row: list[Any], random: Any) -> None:
    def texts(row: list[Any]) -> Any:
        pair = run(row)
        if pair.get("chosen") is None:
            return pair["reason"]
        return row[pair["chosen"]][0]["text"], row[pair["rejected"]][0]["text"], pair["margin"]

    shuffled = list(row)
    random.shuffle(shuffled)
    assert texts(row) == texts(shuffled)


@given(ROW)
def test_one_row_per_prompt_with_a_pair_or_exactly_one_reason(row: list[Any]) -> None:
    pair = run(row)
    assert (pair.get("chosen") is None) == (pair.get("reason") is not None)


def test_best_against_worst() -> None:
    assert outcome(("a sun", 1), ("a boat", 2), ("an anchor", 0)) == ("a boat", "an anchor")


def test_reasons() -> None:
    assert outcome() == "no_valid_candidate"
    assert outcome(("a sun", 1)) == "no_valid_candidate"
    assert outcome(("a sun", 1), ("a boat", 1)) == "tie"
    assert outcome(("a sun", 1), ("a boat", 1.25)) == "below_margin"
    assert outcome(("A sun.", 1), ("a sun", 2)) == "identical"
    assert outcome(("a sun and a boat", 1), ("sun", 2)) == "length_gap"


def test_a_margin_reached_exactly_is_enough() -> None:
    assert outcome(("a sun", 1), ("a boat", 1.5)) == ("a boat", "a sun")


def test_of_equals_the_closest_in_length_then_the_text_decides() -> None:
    assert outcome(("one", 2), ("one two three", 2), ("a b c", 0)) == ("one two three", "a b c")
    assert outcome(("zeta", 2), ("alpha", 2), ("mid", 0)) == ("alpha", "mid")


def test_a_cut_or_repetitive_or_empty_text_is_no_candidate() -> None:
    assert not valid({"text": "a sun", "finish_reason": "length"}, POLICY)
    assert not valid({"text": "a sun a sun a sun", "finish_reason": "stop"}, POLICY)
    assert not valid({"text": " ... ", "finish_reason": "stop"}, POLICY)
    assert valid({"text": "a sun a sun", "finish_reason": "stop"}, POLICY)


def test_a_failed_row_stays_failed_with_its_reason() -> None:
    good = {"id": "x", "scores": [{"name": n, "values": []} for n in POLICY.weights], **OK}
    rows = [
        make_pairs([{"id": "x", "candidates": None, **error_status("boom", "why")}], [good], POLICY),
        make_pairs([{"id": "x", "candidates": [], **OK}], [{"id": "x", **error_status("boom", "why")}], POLICY),
    ]
    for (pair,) in rows:
        assert (pair["reason"], pair["status"], pair["error_type"]) == ("failed", "failed", "boom")


@pytest.mark.parametrize(("paired", "left"), [(3, 2), (2, 5), (4, 0), (0, 3)])
def test_a_stage_counts_its_pairs_and_not_the_prompts_without_one(paired: int, left: int) -> None:
    rows = [{"id": "x", "chosen": 0, "rejected": 1, **OK}] * paired + [{"id": "y", "reason": "tie", **OK}] * left
    assert PairStage(POLICY).extras(pa.Table.from_pylist(rows, schema=PAIRS)) == {"pairs": paired}


def test_a_weight_that_no_scorer_gives_is_an_error_with_a_suggestion() -> None:
    scores = [{"id": "x", "scores": [{"name": "objects.hallucinated", "values": []}], **OK}]
    policy = Pair(weights={"objects.halucinated": -1})
    with pytest.raises(ConfigError, match=r"did you mean objects\.hallucinated"):
        make_pairs([{"id": "x", "candidates": [], **OK}], scores, policy)


def test_a_score_that_does_not_apply_is_left_out_and_one_that_lacks_a_value_disqualifies() -> None:
    nothing: list[float | None] = [None, None]
    assert combine({"good": [1, 2], "bad": nothing}, POLICY.weights, 2) == [1, 2]
    assert combine({"good": [1, 2], "bad": [1, None]}, POLICY.weights, 2) == [0, None]
    assert combine({"good": nothing, "bad": nothing}, POLICY.weights, 2) == nothing
    assert combine({"good": [1, float("nan")]}, POLICY.weights, 2) == [1, None]


PIECES = st.sampled_from(
    ["sun", "Sun", "boat", "a", "...", "anchor,", "\u00c9tude", "\ufb01n", "\u3000", "\u00bf", "$", "\0"]
)
NUMBER = st.sampled_from([None, 0.0, 0.5, 1.0, 1.25, float("nan"), float("inf")])
BROKEN = st.sampled_from([OK, OK, OK, error_status("boom", "why")])


@st.composite
def shard(draw: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A few rows of candidates with their scores; some failed, some without scores, not in the same order."""
    samples, scores = [], []
    for i in range(draw(st.integers(0, 4))):
        count, status = draw(st.integers(0, 5)), (draw(BROKEN), draw(BROKEN))
        texts = [draw(st.none() | st.lists(PIECES, max_size=5).map(" ".join)) for _ in range(count)]
        reasons = [draw(st.sampled_from(["stop", "stop", None, "length"])) for _ in range(count)]
        candidates = [{"text": t, "finish_reason": r} for t, r in zip(texts, reasons, strict=True)]
        values = [{"name": n, "version": "1", "values": [draw(NUMBER) for _ in range(count)]} for n in ("good", "bad")]
        samples.append({"id": str(i), "candidates": candidates if status[0] is OK else None, **status[0]})
        if draw(st.integers(0, 5)):
            scores.append({"id": str(i), "scores": values[: draw(st.integers(1, 2))], **status[1]})
            scores[-1] |= {} if status[1] is OK else {"scores": None}
    return samples, draw(st.permutations(scores))


@given(shard(), st.sampled_from([1e-30, 0.25, 1.0]), st.integers(1, 2), st.sampled_from([1.0, 1.5, 9.0]))
def test_columns_give_the_very_rows(tables: Any, margin: float, words: int, ratio: float) -> None:
    policy = Pair(weights={"good": 1.0, "bad": -0.3}, margin=margin, min_words=words, max_length_ratio=ratio)
    samples, scores = tables
    if not any(row["status"] == "ok" and len(row["scores"]) == 2 for row in scores):
        policy = policy.model_copy(update={"weights": {"good": 2.0}})
    plain = pa.Table.from_pylist(make_pairs(samples, scores, policy), schema=PAIRS)
    columns = pairs_of(
        pa.Table.from_pylist(samples, schema=CANDIDATES), pa.Table.from_pylist(scores, schema=SCORES), policy
    )
    assert columns.to_pylist() == plain.to_pylist()


TIED = st.tuples(st.sampled_from(["b", "B", "a c", "\u00e9", "z z2"]), st.sampled_from([1.0, 2.0]))


@given(st.lists(TIED, max_size=8), st.sampled_from([1e-30, 1.0]))
def test_columns_choose_the_same_among_equals(texts: list[tuple[str, float]], margin: float) -> None:
    samples = [{"id": "x", "candidates": [{"text": text, "finish_reason": "stop"} for text, _ in texts], **OK}]
    scores = [{"id": "x", "scores": [{"name": "good", "version": "1", "values": [v for _, v in texts]}], **OK}]
    policy = Pair(weights={"good": 1.0}, margin=margin)
    columns = pairs_of(
        pa.Table.from_pylist(samples, schema=CANDIDATES), pa.Table.from_pylist(scores, schema=SCORES), policy
    )
    assert columns.to_pylist() == pa.Table.from_pylist(make_pairs(samples, scores, policy), schema=PAIRS).to_pylist()


@given(st.lists(st.sampled_from("ab"), max_size=12).map(" ".join), st.integers(1, 4))
def test_columns_see_the_same_repetition(text: str, most: int) -> None:
    policy = POLICY.model_copy(update={"max_repeated": most})
    row = [({"text": words, "finish_reason": "stop"}, score, None) for words, score in ((text, 2.0), ("c d e f", 0.0))]
    samples = [{"id": "x", "candidates": [c for c, _, _ in row], **OK}]
    values = [{"name": n, "version": "1", "values": [r[i] for r in row]} for i, n in ((1, "good"), (2, "bad"))]
    table = pairs_of(
        pa.Table.from_pylist(samples, schema=CANDIDATES),
        pa.Table.from_pylist([{"id": "x", "scores": values, **OK}], schema=SCORES),
        policy,
    )
    assert (table["reason"][0].as_py() == "no_valid_candidate") == (not valid(row[0][0], policy))


def test_a_score_with_too_few_values_is_an_error_that_names_the_row() -> None:
    samples = [{"id": "x", "candidates": [{"text": "a"}, {"text": "b"}], **OK}]
    scores = [{"id": "x", "scores": [{"name": "good", "values": [1.0]}], **OK}]
    tables = (pa.Table.from_pylist(samples, schema=CANDIDATES), pa.Table.from_pylist(scores, schema=SCORES))
    with pytest.raises(InputError, match=r"id 'x' has 1 values of good for 2 candidates"):
        pairs_of(*tables, Pair(weights={"good": 1.0}))
