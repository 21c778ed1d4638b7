from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.score import Pair
from pipeline.errors import ConfigError
from pipeline.stages.pair import REASONS, combined, make_pairs, normalised, repeats, valid
from pipeline.tables import OK, failed

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
    assert normalised(chosen["text"]) != normalised(rejected["text"])
    assert pair["chosen_score"] >= pair["rejected_score"] + margin > pair["rejected_score"]
    totals = combined({"good": [r[1] for r in row], "bad": [r[2] for r in row]}, policy.weights, len(row))
    assert (totals[pair["chosen"]], totals[pair["rejected"]]) == (pair["chosen_score"], pair["rejected_score"])
    for one in (chosen, rejected):
        assert one["text"].strip() and one["finish_reason"] != "length" and repeats(one["text"]) <= 2
    lengths = [len(normalised(one["text"]).split()) for one in (chosen, rejected)]
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


@pytest.mark.parametrize(("text", "times"), [("", 0), ("a", 1), ("a a a", 3), ("a b a b", 2), ("a b c a b", 1)])
def test_repeats(text: str, times: int) -> None:
    assert repeats(text) == times


def test_a_failed_row_stays_failed_with_its_reason() -> None:
    good = {"id": "x", "scores": [{"name": n, "values": []} for n in POLICY.weights], **OK}
    rows = [
        make_pairs([{"id": "x", "candidates": None, **failed("boom", "why")}], [good], POLICY),
        make_pairs([{"id": "x", "candidates": [], **OK}], [{"id": "x", **failed("boom", "why")}], POLICY),
    ]
    for (pair,) in rows:
        assert (pair["reason"], pair["status"], pair["error_type"]) == ("failed", "failed", "boom")


def test_a_weight_that_no_scorer_gives_is_an_error_with_a_suggestion() -> None:
    scores = [{"id": "x", "scores": [{"name": "objects.hallucinated", "values": []}], **OK}]
    policy = Pair(weights={"objects.halucinated": -1})
    with pytest.raises(ConfigError, match=r"did you mean objects\.hallucinated"):
        make_pairs([{"id": "x", "candidates": [], **OK}], scores, policy)


def test_a_score_that_does_not_apply_is_left_out_and_one_that_lacks_a_value_disqualifies() -> None:
    nothing: list[float | None] = [None, None]
    assert combined({"good": [1, 2], "bad": nothing}, POLICY.weights, 2) == [1, 2]
    assert combined({"good": [1, 2], "bad": [1, None]}, POLICY.weights, 2) == [0, None]
    assert combined({"good": nothing, "bad": nothing}, POLICY.weights, 2) == nothing
    assert combined({"good": [1, float("nan")]}, POLICY.weights, 2) == [1, None]
