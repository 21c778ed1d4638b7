"""What facts say of a text, and what the verdicts on its claims do."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from rewriting_kit import ENGLISH, THINGS, box, described, facts, indices, thing

from pipeline.rewriting.by_claims import by_claims
from pipeline.scenes.scene_words import scenes
from reward.asking.claims import SPLITTING
from reward.asking.protocol import Verdict
from reward.text.fact_findings import by_facts, hallucinations, sentence_verdicts, without_verdict
from reward.text.sentences import split
from reward.text.types import Finding, Problem


def findings_of(text: str, row_facts: Any, complete: bool = True) -> list[str]:
    return [
        f"{finding.verdict} {finding.kind}: {finding.words}" for finding in by_facts(text, row_facts, ENGLISH, complete)
    ]


# --------------------------------------------------------------------------------------------------------- by objects


def test_every_claim_has_a_finding_of_its_own() -> None:
    row_facts = facts(thing("dog", 2, "brown"), thing("cup", 1, "red"))
    assert findings_of("Two black dogs and three cups. A cat! It rains.", row_facts) == [
        "correct object: Two black dogs", "correct count: Two", "hallucination attribute: black",
        "correct object: three cups", "hallucination count: three",
        "hallucination object: A cat",
        "unclear None: It rains.",
    ]  # fmt: skip


def test_what_two_people_call_one_thing_is_no_hallucination() -> None:
    row_facts = facts(thing("cup", 1, "grey"), thing("boat", 1, "tan", "stone"))
    assert findings_of("A silver cup, a beige, brick boat and a blue cup.", row_facts) == [
        "correct object: A silver cup", "unclear attribute: silver",
        "correct object: a beige, brick boat", "unclear attribute: beige", "unclear attribute: brick",
        "correct object: a blue cup", "hallucination attribute: blue",
    ]  # fmt: skip


@given(indices)
def test_findings_lie_in_their_sentences_and_no_sentence_is_without(index: int) -> None:
    text, row_facts, _ = described(index)
    sentences, findings = split(text), by_facts(text, row_facts, scenes())
    assert {finding.sentence for finding in findings} == set(range(len(sentences))) == set(sentence_verdicts(findings))
    for finding in findings:
        assert text[finding.start : finding.end] == finding.words and finding.reason and finding.by == "facts"
        assert sentences[finding.sentence].start <= finding.start < finding.end <= sentences[finding.sentence].end


@pytest.mark.parametrize(
    ("text", "thing_facts", "expected"),
    [
        # What the facts do not say is unclear.
        ("Two dogs", thing("dog", None), "unclear count: Two"),
        ("A brown dog", thing("dog"), "unclear attribute: brown"),
        ("A wooden boat", thing("boat", 1, "red"), "unclear attribute: wooden"),
        ("A dog on the left", thing("dog"), "unclear relation: left"),
        # Boxes count where no number is given.
        ("Three dogs", thing("dog", None, boxes=[box(0.2, 0.2), box(0.7, 0.7)]), "hallucination count: Three"),
        # One of several may be so.
        ("A grey dog", thing("dog", 1, "gray", "white"), "correct attribute: grey"),
        ("A dog on the left", thing("dog", 2, boxes=[box(0.2, 0.5), box(0.8, 0.5)]), "correct relation: left"),
        ("A dog on the right", thing("dog", 2, boxes=[box(0.2, 0.5), box(0.3, 0.5)]), "hallucination relation: right"),
        ("Two dogs on the left", thing("dog", 2, boxes=[box(0.2, 0.5), box(0.8, 0.5)]), "hallucination relation: left"),
        ("A dog on the left", thing("dog", 1, boxes=[box(0.52, 0.5)]), "unclear relation: left"),
        ("The dog is in the top-left corner", thing("dog", 1, boxes=[box(0.2, 0.2)]),
         "correct relation: top-left corner"),
        ("One dog at the top", thing("dog", 2, boxes=[box(0.2, 0.1), box(0.2, 0.8)]), "correct count: One"),
    ],
)  # fmt: skip
def test_a_single_thing_is_judged_so(text: str, thing_facts: dict[str, Any], expected: str) -> None:
    assert expected in findings_of(text, facts(thing_facts))


def test_things_of_one_name_are_taken_together() -> None:
    row_facts = facts(thing("cup", 1, "red"), thing("cup", 2, "blue"))
    assert not hallucinations(by_facts("Three cups: a red cup, two blue cups.", row_facts, ENGLISH))
    assert findings_of("Two red cups.", row_facts)[1] == "hallucination count: Two"
    unknown = facts(thing("cup", 1, "red"), thing("cup", 1))
    assert "unclear attribute: blue" in findings_of("A blue cup.", unknown)


@pytest.mark.parametrize(("words", "verdict"), [
    ("to the left of", "correct"), ("to the right of", "hallucination"), ("above", "unclear"), ("below", "unclear"),
])  # fmt: skip
def test_neighbours_are_in_order_only_if_they_are_clearly_apart(words: str, verdict: str) -> None:
    row_facts = facts(thing("dog", 1, boxes=[box(0.2, 0.5)]), thing("cat", 1, boxes=[box(0.8, 0.52)]))
    assert f"{verdict} relation: {words}" in findings_of(f"The dog is {words} the cat.", row_facts)


def test_of_what_is_not_there_nothing_else_is_judged() -> None:
    assert findings_of("Two red dogs on the left of a cat.", facts(thing("cat"))) == [
        "hallucination object: Two red dogs", "correct object: a cat",
    ]  # fmt: skip


@pytest.mark.parametrize("row_facts", [None, {}, facts(), {"objects": None, "regions": []}])
def test_without_facts_everything_is_unclear(row_facts: Any) -> None:
    assert findings_of("A dog. It rains.", row_facts) == ["unclear object: A dog", "unclear None: It rains."]


# --------------------------------------------------------------------------------------------------------- by regions


def regions(*named: tuple[str, list[float]]) -> dict[str, Any]:
    return {"objects": None, "regions": [{"phrase": phrase, "box": where} for phrase, where in named]}


def test_what_a_region_names_is_there_and_nothing_else_if_they_are_complete() -> None:
    row_facts = regions(("a man holding an umbrella", box(0.5, 0.5)))
    assert findings_of("A man, an umbrella, a dog.", row_facts) == [
        "correct object: A man", "correct object: an umbrella", "hallucination object: a dog",
    ]  # fmt: skip
    assert findings_of("A dog.", row_facts, complete=False) == ["unclear object: A dog"]


@pytest.mark.parametrize(
    ("text", "verdict"),
    [("three dogs", "hallucination"), ("two dogs", "correct"), ("one dog", "unclear")],
)
def test_regions_apart_bound_a_number_from_above(text: str, verdict: str) -> None:
    row_facts = regions(("a brown dog", box(0.2, 0.2)), ("the dog", box(0.8, 0.8)))
    assert f"{verdict} count: {text.split()[0]}" in findings_of(text, row_facts)


def test_regions_that_overlap_may_be_one_thing() -> None:
    row_facts = regions(("a brown dog", box(0.5, 0.5)), ("a dog that sleeps", box(0.52, 0.5)))
    assert [findings_of(text, row_facts)[1] for text in ("three dogs", "two dogs", "one dog")] == [
        "hallucination count: three", "unclear count: two", "unclear count: one",
    ]  # fmt: skip
    assert "correct attribute: brown" in findings_of("a brown dog", row_facts)
    assert "hallucination attribute: black" in findings_of("a black dog", row_facts)


def test_a_region_of_several_things_bounds_no_number() -> None:
    assert "unclear count: nine" in findings_of("nine dogs", regions(("some dogs", box(0.5, 0.5))))


def test_a_colour_that_one_region_does_not_tell_may_be_any() -> None:
    row_facts = regions(("a brown dog", box(0.2, 0.2)), ("a dog", box(0.8, 0.8)))
    assert "unclear attribute: black" in findings_of("a black dog", row_facts)


def test_captions_say_what_is_there_and_not_what_is_not() -> None:
    assert findings_of("A dog and a cat.", {"captions": ["Two dogs play."]}) == [
        "correct object: A dog", "unclear object: a cat",
    ]  # fmt: skip


# ---------------------------------------------------------------------------------------------------------- by claims


def claimed(text: str, *verdicts: Verdict, **keys: Any) -> list[tuple[int, str, str]] | Problem:
    made = by_claims(text, 0, verdicts, **keys)
    return (
        made if isinstance(made, Problem) else [(finding.sentence, finding.verdict, finding.words) for finding in made]
    )


def test_a_verdict_on_a_phrase_stands_at_its_words() -> None:
    text = "There is the red sun and two boats. A dog! It rains."
    verdicts = [Verdict(0, "a dog", p_yes=0.1), Verdict(0, "two boats", p_yes=0.8), Verdict(1, "a dog", p_yes=0.9)]
    assert claimed(text, *verdicts, lexicon=ENGLISH) == [
        (0, "correct", "two boats"), (1, "hallucination", "A dog"), (2, "unclear", "It rains."),
    ]  # fmt: skip


def test_a_verdict_on_a_statement_stands_in_its_sentence() -> None:
    text = "There is a sun and a boat. The sky is blue."
    verdicts = [Verdict(0, "there is a boat", p_yes=0.2), Verdict(0, "The sky is blue", p_yes=0.6)]
    assert claimed(text, *verdicts) == [
        (0, "hallucination", "There is a sun and a boat."), (1, "correct", "The sky is blue"),
    ]  # fmt: skip


def test_a_claim_in_other_words_goes_to_the_sentence_with_most_of_its_words() -> None:
    text = "A sun. The small boat sails on the river."
    assert claimed(text, Verdict(0, "There are boats on a river", p_yes=0.0)) == [
        (0, "unclear", "A sun."), (1, "hallucination", "The small boat sails on the river."),
    ]  # fmt: skip


def test_between_the_two_thresholds_and_without_a_verdict_a_claim_is_unclear() -> None:
    verdicts = [Verdict(0, "a dog", p_yes=0.5), Verdict(0, "a cat", error="timeout: slow")]
    kinds = claimed("A dog. A cat.", *verdicts, lexicon=ENGLISH, low=0.3, high=0.7)
    assert kinds == [(0, "unclear", "A dog"), (1, "unclear", "A cat")]


def test_a_sentence_with_a_claim_that_nobody_judged_is_neither_right_nor_unheard_where_it_is_wrong() -> None:
    text = "A dog and a cat. A cat and a boat."
    verdicts = [
        Verdict(0, "a dog", p_yes=0.9), Verdict(0, "a cat", error="unreadable: P(yes) + P(no) = 0.001"),
        Verdict(0, "a boat", p_yes=0.1),
    ]  # fmt: skip
    made = by_claims(text, 0, verdicts, ENGLISH)
    assert not isinstance(made, Problem) and sentence_verdicts(made) == {0: "unclear", 1: "hallucination"}
    assert [(finding.sentence, finding.words) for finding in without_verdict(made)] == [(0, "a cat"), (1, "A cat")]
    assert hallucinations(made)[0].words == "a boat" and "P(yes) + P(no) = 0.001" in without_verdict(made)[0].reason
    nan = by_claims(text, 0, [Verdict(0, "a dog", p_yes=float("nan"))], ENGLISH)
    assert not isinstance(nan, Problem) and [finding.words for finding in without_verdict(nan)] == ["A dog"]


def test_a_text_that_could_not_be_split_has_no_findings() -> None:
    made = by_claims("A dog.", 0, [Verdict(0, SPLITTING, error="cut_off: too long")])
    assert made == Problem("cut_off", "too long")


def test_a_sentence_is_wrong_if_anything_in_it_is() -> None:
    made = [Finding(0, 0, 1, "unclear", None, "A", ""), Finding(0, 0, 1, "correct", None, "A", ""),
            Finding(1, 2, 3, "correct", None, "B", ""), Finding(1, 2, 3, "hallucination", None, "B", ""),
            Finding(2, 4, 5, "unclear", None, "C", "")]  # fmt: skip
    assert sentence_verdicts(made) == {0: "correct", 1: "hallucination", 2: "unclear"}
    assert THINGS.canonical("men") == "man"
