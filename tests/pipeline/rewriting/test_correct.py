"""Corrections by rules."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rewriting_kit import ENGLISH, box, described, facts, indices, thing, true_text

from pipeline.rewriting.correct import by_rules
from pipeline.scenes import grammar, prompts
from pipeline.scenes.parse import parse
from pipeline.scenes.scene_words import scenes
from pipeline.scenes.world import scene
from reward.text.fact_findings import by_facts, hallucinations
from reward.text.lexicon import Lexicon
from reward.text.noun_phrases import read
from reward.text.sentences import split
from reward.text.types import KINDS, Finding, Problem, Rewrite, apply

ABSENT = st.sampled_from(["remove", "replace"])


def corrected(text: str, truth: dict[str, Any], lexicon: Lexicon = ENGLISH, absent: Any = "remove") -> str:
    made = by_rules(text, by_facts(text, truth, lexicon), truth, lexicon, absent)
    return made.text if isinstance(made, Rewrite) else made.kind


KNOWN = facts(
    thing("dog", 2, "brown", boxes=[box(0.2, 0.8), box(0.8, 0.8)]),
    thing("cup", 1, "orange", boxes=[box(0.2, 0.2)]),
    thing("boat", 3, "red", "white", boxes=[box(0.8, 0.2)] * 3),
)


@pytest.mark.parametrize(
    ("text", "right"),
    [
        # attributes, with the article
        ("There is a red cup.", "There is an orange cup."),
        ("A small, blue cup stands here.", "A small, orange cup stands here."),
        ("The cup is blue, and it is old.", "The cup is orange, and it is old."),
        # numbers, with noun and verb
        ("There is one dog and a cup.", "There are two dogs and a cup."),
        ("There are two cups and two dogs.", "There is one cup and two dogs."),
        ("One dog is asleep.", "Two dogs are asleep."),
        ("4 boats sail.", "Three boats sail."),
        ("In the image, there are 5 blue dogs.", "In the image, there are two brown dogs."),
        # absent objects in lists
        ("There is a cat, a dog and a cup.", "There is a dog and a cup."),
        ("There is a dog, a cat and a cup.", "There is a dog and a cup."),
        ("There is a dog, a cup and a cat.", "There is a dog and a cup."),
        ("There is a dog, a cat, and a cup.", "There is a dog and a cup."),
        ("There is a dog, a cup, a cat, and a boat.", "There is a dog, a cup, and a boat."),
        ("There are two dogs and a cat.", "There are two dogs."),
        ("There are two cats and a cup.", "There is a cup."),
        ("You can see a cat, a man and a cup.", "You can see a cup."),
        ("A cat and a cup are on display.", "A cup is on display."),
        ("A dog, a cat, and a cup stand there.", "A dog and a cup stand there."),
        ("A dog. You see a cup and a few birds.", "A dog. You see a cup."),
        ("The dogs are black and white.", "The dogs are brown."),
        ("The dogs are brown and white. The dogs are white and brown.", "The dogs are brown. The dogs are brown."),
        ("There are two cups. One cup holds a cat.", "There is one cup."),  # a cup is better than any other object
        ("There are two cups. The man holds a red cup.", "There is one cup."),
        # at the end of what is said
        ("A dog sits next to a cat.", "A dog sits."),
        ("There is a dog with a cat and a cup.", "There is a dog and a cup."),
        ("A cup is on display near a man and a cat.", "A cup is on display."),
        # the sentence goes where nothing is left, or where nobody knows what would be
        ("There is a cup. There is a cat.", "There is a cup."),
        ("There is a cat. There is a cup.", "There is a cup."),
        ("A cup. The cat, which is black, looks at a dog. Dogs.", "A cup. Dogs."),
        ("- A cup\n- A cat\n- A dog", "- A cup\n- A dog"),
        ("- A cup\n- A cat", "- A cup"),
        ("A cat and a dog sleep. A cup.", "A cup."),  # "a dog sleep" is no English
        # what stands behind the last of a list may be said of that one alone
        ("A cup. A dog sits on a boat, and a cat lies beside it.", "A cup."),
        ("A cup. A dog stands near a cat and a boat floats by.", "A cup."),
        ("A cup. A dog stands near a boat and a cat in the image.", "A cup. A dog stands near a boat in the image."),
        ("There are three dogs, and a cup is on display.", "There are two dogs, and a cup is on display."),
        ("**Seen:** There are two cups and a dog.", "**Seen:** There is one cup and a dog."),
        # "A dog is." is no English
        ("A cup. A dog is to the left of a cat.", "A cup."),
        ("A cup. A dog is near a cat.", "A cup."),
        # what goes back to a sentence goes with it
        ("A cup. A cat sleeps. It is black, and its tail is long. The dogs run.", "A cup. The dogs run."),
        ("There are two dogs. One of the dogs is black.", "There are two dogs. One of the dogs is brown."),
        # the same once more
        ("There is a cup. There is also a red cup.", "There is a cup."),
        ("There is a red cup and a blue cup.", "There is an orange cup."),
        # order and place
        ("The cup is below the dogs.", "The cup is above the dogs."),
        ("The cup is to the right of the boats.", "The cup is to the left of the boats."),
        ("In the bottom right corner is a cup.", "In the top left corner is a cup."),
        ("On the left there are boats.", "On the right there are boats."),
        ("On the left you can see two dogs.", "You can see two dogs."),  # one stands right: all have no place
        ("On the left, two dogs sleep.", "Two dogs sleep."),
        ("Two dogs on the left sleep.", "Two dogs sleep."),
        # nothing else would be left
        ("There is a black cat.", "There are two brown dogs."),
        ("In the centre is a white cat.", "In the bottom half are two brown dogs."),
    ],
)  # fmt: skip
def test_a_text_is_corrected_so(text: str, right: str) -> None:
    assert corrected(text, KNOWN) == right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("There is a dog and a cat.", "There is a dog and a cup."),
        ("There is a red cat.", "There are two brown dogs."),
        ("There is a cat, a man and a tree.", "There are two dogs, a cup and three boats."),
        ("The cat sleeps. A cup.", "A cup."),  # it has been spoken of before
        ("A man rides a cat. There is a dog.", "There is a dog."),  # nobody rides a cup
        ("There is a dog, a cup, a boat and a cat.", "There is a dog, a cup and a boat."),  # all are named
        ("In the top left corner is a cat.", "In the top left corner is a cup."),
    ],
)
def test_absent_objects_may_give_way_to_true_ones(text: str, right: str) -> None:
    assert corrected(text, KNOWN, absent="replace") == right


def test_what_is_not_known_goes() -> None:
    truth = {"regions": [{"phrase": "a dog", "box": box(0.5, 0.5)}]}
    assert corrected("There are five dogs.", truth) == "There are dogs."


@pytest.mark.parametrize(
    ("text", "truth", "kind"),
    [
        ("There is a cup.", KNOWN, "nothing_wrong"),
        ("The cat sleeps.", KNOWN, "nothing_left"),
        ("There is a cat.", facts(thing("wug")), "nothing_left"),  # there is only what the vocabulary does not know
    ],
)
def test_a_correction_is_refused_with_the_reason(text: str, truth: dict[str, Any], kind: str) -> None:
    assert corrected(text, truth) == kind


def test_without_facts_rules_cannot_correct() -> None:
    bad = [Finding(0, 0, 5, "hallucination", "object", "A cat", "", "judge")]
    made = by_rules("A cat.", bad, None, ENGLISH)
    assert isinstance(made, Problem) and made.kind == "no_facts"


def test_a_finding_of_no_kind_is_looked_up_and_otherwise_takes_its_sentence_along() -> None:
    text = "There is a red cup. It rains. A dog."

    def flaw(number: int, words: str) -> Finding:
        start = text.index(words)
        return Finding(number, start, start + len(words), "hallucination", None, words, "", "judge")

    made = by_rules(text, [flaw(0, "There is a red cup."), flaw(1, "It rains.")], KNOWN, ENGLISH)
    assert isinstance(made, Rewrite) and made.text == "There is an orange cup. A dog."


def test_the_edits_say_what_became_of_which_words() -> None:
    text = "There is a dog and a cat. There is a red cup."
    made = by_rules(text, by_facts(text, KNOWN, ENGLISH), KNOWN, ENGLISH)
    assert isinstance(made, Rewrite)
    assert [(edit.old, edit.new) for edit in made.edits] == [(" and a cat", ""), ("a", "an"), ("red", "orange")]


# -------------------------------------------------------------------------------------------------------- every scene


@given(indices, ABSENT)
def test_a_corrected_description_has_no_hallucination_and_no_object_that_is_not_there(index: int, absent: Any) -> None:
    text, truth, shown = described(index)
    findings = by_facts(text, truth, scenes())
    made = by_rules(text, findings, truth, scenes(), absent)
    if not hallucinations(findings):
        assert isinstance(made, Problem) and made.kind == "nothing_wrong"
        return
    assert isinstance(made, Rewrite) and made.text == apply(text, made.edits) != text
    assert not hallucinations(by_facts(made.text, truth, scenes()))
    named = {phrase.name for phrase in read(made.text, scenes())}
    assert named and named <= shown.names
    true = {phrase.name for phrase in read(text, scenes())} & shown.names
    assert true <= named  # what was rightly named is still


@given(indices, ABSENT)
def test_a_corrected_description_is_in_the_grammar_of_the_world(index: int, absent: Any) -> None:
    text, truth, _ = described(index)
    made = by_rules(text, by_facts(text, truth, scenes()), truth, scenes(), absent)
    for sentence in split(made.text) if isinstance(made, Rewrite) else ():
        try:
            parse(sentence.text)
        except ValueError as error:
            assert "twice" in str(error)  # as the description before


@given(indices, ABSENT)
def test_untouched_sentences_stay_byte_for_byte(index: int, absent: Any) -> None:
    text, truth, _ = described(index)
    findings = by_facts(text, truth, scenes())
    made = by_rules(text, findings, truth, scenes(), absent)
    if isinstance(made, Rewrite):
        flagged = {finding.sentence for finding in hallucinations(findings)}
        rest = [sentence.text for number, sentence in enumerate(split(text)) if number not in flagged]
        left = iter([sentence.text for sentence in split(made.text)])
        assert all(words in left for words in rest)  # in this order
        for edit in made.edits:
            inside = [n for n, part in enumerate(split(text)) if part.start < edit.end and edit.start < part.end]
            assert set(inside) <= flagged


@given(indices, ABSENT, st.data())
def test_of_a_judge_who_errs_no_object_is_taken_that_is_not_there_and_nothing_it_passed_is_touched(
    index: int, absent: Any, data: st.DataObject
) -> None:
    text, truth, shown = described(index)
    some = data.draw(st.lists(st.sampled_from(by_facts(text, truth, scenes())), min_size=1, unique=True))
    kinds = data.draw(st.lists(st.sampled_from([None, *KINDS]), min_size=len(some), max_size=len(some)))
    flags = [replace(f, verdict="hallucination", kind=k, by="judge") for f, k in zip(some, kinds, strict=True)]
    made = by_rules(text, flags, truth, scenes(), absent)
    if isinstance(made, Rewrite):
        named, before = ({phrase.name for phrase in read(each, scenes())} for each in (made.text, text))
        assert named - before <= shown.names
        flagged = {each.sentence for each in flags}
        left = iter([each.text for each in split(made.text)])
        assert all(each.text in left for number, each in enumerate(split(text)) if number not in flagged)


@given(indices)
def test_a_true_description_has_nothing_to_correct(index: int) -> None:
    shown = scene(5, index)
    text = true_text(shown, random.Random(index))
    assert corrected(text, prompts.facts(shown), scenes()) == "nothing_wrong"


def test_an_object_that_is_said_twice_in_one_wrong_way_is_left_once() -> None:
    shown = scene(5, 3)
    truth = prompts.facts(shown)
    item = grammar.item(shown.objects[0])
    wrong = grammar.Item(item.name, "red" if item.colour != "red" else "blue", item.count)
    text = f"There {wrong.verb} {wrong.phrase}. There {wrong.verb} also {wrong.phrase}."
    assert corrected(text, truth, scenes()) == f"There {item.verb} {item.phrase}."


def test_regions_that_leave_something_out_take_nothing_from_the_text() -> None:
    truth = {"regions": [{"phrase": "a brown dog", "box": box(0.5, 0.5)}]}
    text = "There is a black dog and a cat."
    findings = by_facts(text, truth, ENGLISH, complete=False)
    made = by_rules(text, findings, truth, ENGLISH, complete=False)
    assert isinstance(made, Rewrite) and made.text == "There is a brown dog and a cat."
