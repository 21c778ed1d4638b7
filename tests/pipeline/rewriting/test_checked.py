"""A detector's verdicts, held against exact facts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rewriting_kit import box, described, facts, indices, thing

from pipeline.rewriting.by_claims import by_claims
from pipeline.rewriting.checked import Checked, check, exact, interval, rates, tally
from pipeline.scenes.scene_words import scenes
from reward.asking.protocol import Verdict
from reward.text.fact_findings import by_facts
from reward.text.sentences import split
from reward.text.types import Problem

KNOWN = facts(thing("sun", 1, "red", boxes=[box(0.5, 0.5)]), thing("cup", 2, "blue"))
TEXT = "There is a red sun. There is a moon. You can also see two blue cups. How nice!"


def judged(*verdicts: Any, text: str = TEXT) -> list[Any]:
    """Findings of a judge, one on each sentence."""
    (first, *_) = by_facts(text, None, scenes())
    return [replace(first, sentence=number, verdict=verdict, by="judge") for number, verdict in enumerate(verdicts)]


def test_a_sentence_of_which_the_facts_do_not_tell_all_is_undecided() -> None:
    assert exact(TEXT, KNOWN, scenes()) == {0: "correct", 1: "hallucination", 2: "correct", 3: "unclear"}
    assert exact("In the centre are two blue cups.", KNOWN, scenes()) == {0: "unclear"}  # cups have no boxes


def test_every_sentence_falls_into_one_cell() -> None:
    findings = check(TEXT, judged("hallucination", "hallucination", "correct", "hallucination"), KNOWN, scenes())
    assert [(finding.says, finding.true) for finding in findings][:2] == [
        ("hallucination", "correct"),
        ("hallucination", "hallucination"),
    ]
    counts = tally([findings, check(TEXT, judged("unclear", "unclear", "unclear", "unclear"), KNOWN, scenes())])
    assert counts == {
        "true_positives": 1,
        "false_positives": 1,
        "false_negatives": 1,
        "true_negatives": 3,
        "undecided_sentences": 2,
        "checked_texts": 2,
    }
    made = rates(counts)
    assert made is not None and made.sentences == 6
    assert (made.precision, made.recall, made.error, made.unreadable) == (0.5, 0.5, pytest.approx(1 / 3), 0.0)


def test_a_sentence_with_a_claim_without_a_verdict_counts_neither_as_right_nor_as_wrong() -> None:
    """Of a red sun, a moon and two blue cups; only what is flagged counts all the same."""
    findings = [
        Verdict(0, "a red sun", error="unreadable: 0.001"), Verdict(0, "a moon", error="timeout: slow"),
        Verdict(0, "two blue cups", p_yes=0.9),
    ]  # fmt: skip
    checked = check(TEXT, by_claims(TEXT, 0, findings, scenes()), KNOWN, scenes())
    assert [(sentence.says, sentence.true) for sentence in checked] == [
        (None, "correct"), (None, "hallucination"), ("correct", "correct"), ("unclear", "unclear")
    ]  # fmt: skip
    counts = tally([checked])
    assert counts == {
        "unreadable_sentences": 2, "true_negatives": 1, "undecided_sentences": 1, "checked_texts": 1
    }  # fmt: skip
    made = rates(counts)
    assert made is not None and (made.sentences, made.error, made.recall) == (1, 0.0, None)


def test_an_answer_that_cannot_be_read_counts_as_such_and_one_that_never_came_does_not_count() -> None:
    unread = check(TEXT, Problem("unreadable", "no verdict"), KNOWN, scenes())
    assert [finding.says for finding in unread] == [None] * 4
    counts = tally([unread, check(TEXT, Problem("cut_off", "so long"), KNOWN, scenes())])
    assert counts == {"unreadable_texts": 2}
    made = rates(counts)
    assert made is not None and made == (None, None, None, 1.0, 0)
    assert check(TEXT, Problem("timeout", "late"), KNOWN, scenes()) == ()


@pytest.mark.parametrize("truth", [None, {}, {"objects": []}, {"regions": [{"phrase": "a sun", "box": box(0.5, 0.5)}]}])
def test_without_exact_facts_nothing_is_checked(truth: Any) -> None:
    assert check(TEXT, judged("correct", "correct", "correct", "correct"), truth, scenes()) == ()
    assert rates(tally([()])) is None


@given(indices)
def test_the_facts_never_err_against_themselves(index: int) -> None:
    text, truth, _ = described(index)
    findings = check(text, by_facts(text, truth, scenes()), truth, scenes())
    assert [sentence.sentence for sentence in findings] == list(range(len(split(text))))
    made = rates(tally([findings]))
    assert made is not None and made.error in (None, 0.0) and made.unreadable == 0.0


@given(st.lists(st.lists(st.tuples(st.sampled_from(["hallucination", "correct", "unclear"]), st.booleans()))))
def test_counts_of_parts_add_up(texts: list[list[tuple[Any, bool]]]) -> None:
    every = [
        [Checked(number, says, "hallucination" if wrong else "correct") for number, (says, wrong) in enumerate(text)]
        for text in texts
    ]
    assert tally(every) == tally(every[::2]) + tally(every[1::2])
    made = rates(tally(every))
    assert (made.sentences if made else 0) == sum(map(len, texts))


@given(st.integers(0, 50), st.integers(1, 50))
def test_an_interval_holds_its_share_and_shrinks_with_more_draws(part: int, whole: int) -> None:
    share = min(part, whole) / whole
    (low, high), (inner, outer) = interval(share, whole), interval(share, 4 * whole)
    assert 0 <= low <= inner <= share <= outer <= high <= 1
