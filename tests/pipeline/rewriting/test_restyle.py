"""The same in other words."""

from __future__ import annotations

import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rewriting_kit import ENGLISH, described, indices, true_text

from pipeline.rewriting.correct import by_rules
from pipeline.rewriting.restyle import by_grammar, question, read, same_facts
from pipeline.scenes import grammar
from pipeline.scenes.scene_words import scenes
from pipeline.scenes.world import scene
from reward.asking.protocol import Answer
from reward.text.fact_findings import by_facts, hallucinations
from reward.text.noun_phrases import assertions
from reward.text.types import Problem, Rewrite


@given(indices, indices, st.integers(1, 4))
@example(270, 0, 1)  # names one thing twice
def test_a_paraphrase_says_the_same_in_other_words(index: int, seed: int, wanted: int) -> None:
    text, truth, _ = described(index)
    made = by_grammar(text, seed, wanted)
    texts = [version for version in made if not isinstance(version, Problem)]
    assert len(made) == wanted and len({text, *texts}) == len(texts) + 1
    for new in texts:
        assert assertions(new, scenes()) == assertions(text, scenes()) and same_facts(new, text, scenes()) is None
        bad, other = (hallucinations(by_facts(each, truth, scenes())) for each in (text, new))
        assert {each.kind for each in bad} == {each.kind for each in other}  # said twice, it may be said once
    assert made == by_grammar(text, seed, wanted)


def test_nearly_every_description_has_three_paraphrases() -> None:
    texts = [true_text(scene(8, index), random.Random(index)) for index in range(60)]
    made = [version for index, text in enumerate(texts) for version in by_grammar(text, index, 3)]
    refused = [version for version in made if isinstance(version, Problem)]
    assert len(refused) < 0.1 * len(made)
    assert {problem.kind for problem in refused} <= {"unchanged"}


def test_a_corrected_description_can_be_restyled_even_if_it_begins_with_a_place() -> None:
    text = "There is a red moon. In the centre is a red sun. You can also see two blue cups."
    truth = {"objects": [{"name": "sun", "count": 1, "attributes": ["red"], "boxes": [[0.4, 0.4, 0.6, 0.6]]},
                         {"name": "cup", "count": 2, "attributes": ["blue"], "boxes": []}]}  # fmt: skip
    right = by_rules(text, by_facts(text, truth, scenes()), truth, scenes())
    assert isinstance(right, Rewrite) and right.text.startswith("In the centre")
    (made,) = by_grammar(right.text, 0, 1)
    assert isinstance(made, str) and "In the centre is a red sun." in made


@pytest.mark.parametrize("text", ["A dog sleeps.", "There are two red cups and two red cups.", "", "There is a sun."])
def test_what_the_grammar_cannot_say_is_refused(text: str) -> None:
    made = by_grammar(text, 0, 2)
    assert [isinstance(problem, Problem) and problem.kind for problem in made] == ["not_in_grammar"] * 2


@given(indices, st.integers(0, 3))
def test_a_text_that_says_anything_else_is_found(index: int, what: int) -> None:
    items = grammar.reading_order(scene(9, index))
    item = items[0]
    other = [
        [*items, grammar.Item(next(n for n in grammar.OBJECTS if n not in {i.name for i in items}), "red", 1)],
        items[1:],
        [grammar.Item(item.name, "red" if item.colour != "red" else "blue", item.count, item.cell), *items[1:]],
        [grammar.Item(item.name, item.colour, item.count % 3 + 1), *items[1:]],
    ][what]
    texts = [grammar.describe(each, random.Random(index)) if each else "" for each in (items, other)]
    assert same_facts(texts[0], texts[1], scenes()) is not None
    assert same_facts(texts[1], texts[0], scenes()) is not None


@given(indices, indices, st.booleans())
def test_of_whatever_a_model_answers_only_what_says_the_same_is_taken(index: int, other: int, same: bool) -> None:
    text = described(index)[0]
    (paraphrase,) = by_grammar(text, other, 1)
    answer = paraphrase if same and isinstance(paraphrase, str) else described(other)[0]
    made = read(Answer(answer), text, scenes())
    if isinstance(made, Problem):
        assert made.kind == ("unchanged" if answer == text else "other_facts")
        assert answer == text or assertions(answer, scenes()) != assertions(text, scenes())
    else:
        assert made == answer and assertions(made, scenes()) == assertions(text, scenes())


def test_the_difference_is_named() -> None:
    assert same_facts("A dog.", "A dog. A cat.", ENGLISH) == "object cat is not in the first text"


# ------------------------------------------------------------------------------------------------------- by a model


def test_the_writer_sees_the_text_quoted_and_no_image() -> None:
    request = question("A dog.\nAdd a cat.", 66)
    assert (request.images, request.max_tokens) == (False, 66) and "> A dog.\n> Add a cat." in request.text


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer('"One sees a brown dog, and two cats."'), "One sees a brown dog, and two cats."),
        (Answer("The text is: There is a brown dog and two cats."), "off_task"),
        (Answer("One sees a brown dog.\n\nThere are two cats."), "off_task"),
        (Answer('> "One sees a brown dog, and two cats."'), "off_task"),
        (Answer(" \n"), "unreadable"),
        (Answer("There is a brown dog. There are two cats. "), "unchanged"),
        (Answer("One sees a black dog and two cats."), "other_facts"),
        (Answer("One sees a brown dog."), "other_facts"),
        (
            Answer("<think>A dog, two cats.</think>One sees a brown dog, and two cats."),
            "One sees a brown dog, and two cats.",
        ),
        (Answer("One sees a brown dog and two cats, and no snow."), "other_facts"),
        (Answer("One sees a brown dog and", complete=False), "cut_off"),
        (Answer(error="timeout: slow"), "timeout"),
    ],
)
def test_a_paraphrase_is_taken_only_if_it_keeps_the_facts(answer: Answer, expected: str) -> None:
    made = read(answer, "There is a brown dog. There are two cats.", ENGLISH)
    assert (made.kind if isinstance(made, Problem) else made) == expected
    assert not isinstance(made, Problem) or made.message


def test_what_is_denied_of_something_that_no_vocabulary_has_stays_so() -> None:
    assert same_facts("No lamp is lit.", "A lamp is lit.", ENGLISH) == "the first text alone denies something: 'No'"
    assert same_facts("No lamp is lit.", "There isn't a lamp that is lit.", ENGLISH) is None


def test_quotes_within_a_paraphrase_are_no_quotes_around_it() -> None:
    text = '"Stop" stands on a sign, and another one reads "Go"'
    assert read(Answer(text), 'A sign reads "Stop", and a second one says "Go"', ENGLISH) == text
