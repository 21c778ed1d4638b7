"""Questions that descriptions give rise to."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rewriting_kit import ENGLISH, described, facts, indices, thing

from pipeline.rewriting.questions import ask
from pipeline.scenes import prompts
from pipeline.scenes.scene_words import scenes
from pipeline.scenes.vocabulary import COLOURS, VOCABULARY
from pipeline.scenes.world import scene
from reward.text.cooccurrence import Cooccurrence
from reward.text.fact_findings import by_facts
from reward.text.lexicon import Lexicon
from reward.text.types import Finding, ImageQuestion

SEEN = Cooccurrence.of((prompts.facts(scene(0, index)) for index in range(100)), scenes())
KNOWN = facts(thing("dog", 2, "brown"), thing("cup", 1, "red"))


def quiz(text: str, truth: Any, per_image: int, lexicon: Lexicon = ENGLISH, **keys: Any) -> tuple[ImageQuestion, ...]:
    findings, seen, seed = by_facts(text, truth, lexicon), keys.pop("seen", Cooccurrence()), keys.pop("seed", 0)
    return ask(truth, [(text, findings)], lexicon, seen, seed, per_image, **keys)


@given(indices, st.integers(1, 8), st.integers(0, 9))
def test_answers_are_exact_and_yes_and_no_are_balanced(index: int, per_image: int, seed: int) -> None:
    text, row_facts, shown = described(index)
    questions = quiz(text, row_facts, per_image, scenes(), seen=SEEN, seed=seed)
    truth = {thing.name: thing for thing in shown.objects}
    assert len({each.text for each in questions}) == len(questions) <= per_image
    yes = sum(each.answer == "Yes" for each in questions)
    assert abs(len(questions) - 2 * yes) <= 1
    assert len(questions) >= min(per_image, 2 * len(shown.objects))
    # The kind of a question, and with it the words it is asked in, says nothing about its answer.
    for kind in ("existence", "attribute", "count"):
        answers = [each.answer for each in questions if each.question_type == kind]
        assert abs(answers.count("Yes") - answers.count("No")) <= (kind == "existence")
    for each in questions:
        (mention,) = VOCABULARY.mentions(each.text)
        there = truth.get(mention.name)
        right = there is not None
        if each.question_type == "attribute":
            right = there is not None and there.colour in each.text.split()
        if each.question_type == "count":
            number = ["zero", "one", "two", "three"].index(each.text.split()[3])
            right = there is not None and there.count == number
        assert each.answer == ("Yes" if right else "No") != each.wrong and each.about == mention.name
    assert questions == quiz(text, row_facts, per_image, scenes(), seen=SEEN, seed=seed)


@given(indices)
def test_what_was_made_up_is_asked_about_first(index: int) -> None:
    text, truth, shown = described(index)
    wrong = {phrase.name for phrase in VOCABULARY.mentions(text)} - shown.names
    questions = quiz(text, truth, 4, scenes(), seen=SEEN)
    absent = {each.about for each in questions if each.question_type == "existence" and each.answer == "No"}
    assert (absent <= wrong) if len(wrong) >= 3 else (wrong <= absent)
    for each in questions:
        assert (each.why == "cooccurring") == (each.answer == "No" and each.about not in truth_said(text))


def truth_said(text: str) -> set[str]:
    return {mention.name for mention in VOCABULARY.mentions(text)}


def test_wrong_attributes_and_numbers_are_asked_about_and_the_right_ones_too() -> None:
    by_text = {each.text: (each.answer, each.why) for each in quiz("Three black dogs.", KNOWN, 4)}
    assert by_text == {
        "Is there a black dog in the image?": ("No", "hallucinated"),
        "Are there exactly three dogs in the image?": ("No", "hallucinated"),
        "Is there a brown dog in the image?": ("Yes", "true"),
        "Are there exactly two dogs in the image?": ("Yes", "true"),
    }


def test_absent_objects_that_go_along_come_first() -> None:
    seen = Cooccurrence.of([facts(thing("dog"), thing("man")), facts(*map(thing, ("cup", "table", "man")))], ENGLISH)
    questions = quiz("A dog.", KNOWN, 4, seen=seen)
    assert [each.about for each in questions if each.answer == "No"] in (["man", "table"], ["table", "man"])
    assert {each.why for each in questions if each.answer == "No"} == {"cooccurring"}


def test_short_answers_are_asked_for_if_wanted() -> None:
    by_text = {each.text: (each.answer, each.wrong) for each in quiz("Three black dogs. A cat.", KNOWN, 4, short=True)}
    assert by_text["What colour are the dogs?"] == ("brown", "black")
    assert by_text["How many dogs are in the image?"] == ("two", "three")
    assert sorted(answer for answer, _ in by_text.values() if answer in ("Yes", "No")) == ["No", "Yes"]


def test_the_colour_of_what_has_two_is_not_asked_for() -> None:
    # "White" would be the rejected answer to "What colour is the cup?" where "black" is the chosen one.
    known = facts(thing("dog", 2, "brown"), thing("cup", 1, "black", "white"))
    assert "What colour is the cup?" not in {each.text for each in quiz("A red cup.", known, 4, short=True)}
    near = facts(thing("cup", 1, "gray"), thing("dog"))
    assert not any("silver" in each.text for each in quiz("A silver cup.", near, 8))


def test_a_finding_of_a_judge_counts_only_if_the_facts_agree() -> None:
    text = "A cup and a cat."
    findings = [Finding(0, 0, len(text), "hallucination", None, text, "", "judge")]
    questions = ask(KNOWN, [(text, findings)], ENGLISH, Cooccurrence(), 0, 2)
    assert [each.about for each in questions if each.answer == "No"] == ["cat"]


@pytest.mark.parametrize("truth", [None, {}, {"captions": ["A dog."]}])
def test_nothing_is_asked_where_it_is_not_known_what_is_absent(truth: Any) -> None:
    assert quiz("A dog.", truth, 4) == ()


def test_of_every_odd_number_sometimes_yes_and_sometimes_no_is_one_more() -> None:
    counts = {
        sum(question.answer == "Yes" for question in quiz("A dog. A cat.", KNOWN, 3, seed=seed)) for seed in range(20)
    }
    assert counts == {1, 2}


def test_colours_of_the_world_are_all_asked_about_in_its_own_words() -> None:
    assert set(COLOURS) == set(scenes().values("colour"))
