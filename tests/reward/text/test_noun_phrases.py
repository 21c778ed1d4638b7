"""What a text is understood to say."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rewriting_kit import ENGLISH, THINGS, faulty_items, indices

from pipeline.scenes import grammar
from pipeline.scenes.scene_words import scenes
from pipeline.scenes.world import CELL_NAMES, scene
from reward.text.lexicon import Lexicon, article, general
from reward.text.noun_phrases import assertions, read
from reward.text.object_vocabulary import Vocabulary


def phrases_in(text: str, lexicon: Lexicon = ENGLISH) -> list[str]:
    """Number, attributes, name, place and neighbour of every phrase, in words."""
    lines = []
    for phrase in read(text, lexicon):
        parts = [str(phrase.count)] if phrase.count is not None else []
        parts += [*(attribute.value for attribute in phrase.attributes), phrase.name]
        parts += [f"@{phrase.place.name}"] if phrase.place else []
        parts += [f"{phrase.beside.direction}:{phrase.beside.other}"] if phrase.beside else []
        lines.append(" ".join(parts))
    return lines


@pytest.mark.parametrize(
    ("text", "phrases"),
    [
        ("There are two red boats and a small, blue cup.", ["2 red boat", "blue cup"]),
        ("A dog and 3 cats.", ["dog", "3 cat"]),
        ("One of the dogs sleeps.", ["dog"]),  # says nothing of their number
        ("A pair of dogs, a couple of old birds, several cats", ["2 dog", "2 bird", "cat"]),
        ("A few dogs, the few birds, a group of small dogs and lots of cups", ["dog", "bird", "dog", "cup"]),
        ("The image shows red boats.", ["red boat"]),
        ("The dog that barks at red boats", ["dog", "red boat"]),
        ("The boat is red and white. The cup looks very blue.", ["red white boat", "blue cup"]),
        ("The cup is blue and red boats float.", ["blue cup", "red boat"]),
        ("There is no dog, without a cat, and not a cup, nor boats or birds, but a tree.", ["tree"]),
        ("There isn't a dog. There are no dogs or cats. There is no dog, and a cat sleeps.", ["cat"]),
        ("Is there a dog? Yes, a dog.", ["dog"]),
        ("In the top left corner is a sun.", ["sun @top left corner"]),
        ("In the centre, there are two cups and a dog. A cat sleeps.", ["2 cup @centre", "dog @centre", "cat"]),
        ("On the left, a dog sleeps, and on the right you can see a cat.", ["dog @left", "cat @right"]),
        ("A dog in the bottom-right corner and a cat at the top of the image.",
         ["dog @bottom-right corner", "cat @top"]),
        ("A dog can be seen on the left side.", ["dog @left side"]),
        ("A dog in the middle of the road, a cat on the left of a tree.", ["dog", "cat left:tree", "tree"]),
        ("The sun is above a boat. A cup stands to the right of the dog.",
         ["sun above:boat", "boat", "cup right:dog", "dog"]),
        ("A wooden table. A big, old, grey horse", ["wooden table", "gray horse"]),
        ("", []),
    ],
)  # fmt: skip
def test_english_is_read_so(text: str, phrases: list[str]) -> None:
    assert phrases_in(text) == phrases


def test_a_colour_is_no_fruit() -> None:
    fruit = general(Vocabulary("fruit", "1", {"orange": "orange", "oranges": "orange", "cup": "cup"}))
    assert phrases_in("An orange cup, an orange, and two oranges.", fruit) == ["orange cup", "orange", "2 orange"]


def test_a_pair_of_scissors_may_be_one_or_two() -> None:
    words = general(Vocabulary("pairs", "1", {"scissors": "scissors", "skis": "skis", "dogs": "dog", "dog": "dog"}))
    assert phrases_in("A pair of scissors, a pair of skis and a pair of dogs.", words) == ["scissors", "skis", "2 dog"]


@given(indices)
def test_every_item_of_a_description_of_a_scene_is_read_as_it_was_meant(index: int) -> None:
    rng = random.Random(index)
    items = faulty_items(scene(3, index), rng)
    text = grammar.describe(items, rng)
    for phrase, item in zip(read(text, scenes()), items, strict=True):
        assert (phrase.name, phrase.count) == (item.name, item.count)
        assert [attribute.value for attribute in phrase.attributes] == [item.colour]
        assert phrase.place is None or phrase.place.name == CELL_NAMES[item.cell or 0]
        assert text[phrase.start : phrase.end] == item.phrase
    assert text.count("In the ") == sum(phrase.place is not None for phrase in read(text, scenes()))


SAID = "a two the no red blue dog dogs cat in centre is are and , . left of above on to"


@given(st.text(alphabet="ab ,.2\ndogcatsnotheifr", max_size=60) | st.lists(st.sampled_from(SAID.split())).map(" ".join))
def test_spans_hold_what_they_say_whatever_the_text(text: str) -> None:
    end = 0
    for phrase in read(text, ENGLISH):
        assert end <= phrase.start <= phrase.noun[0] < phrase.noun[1] == phrase.end
        assert text[slice(*phrase.noun)] == phrase.surface and THINGS.canonical(phrase.surface) == phrase.name
        for attribute in phrase.attributes:
            word = text[attribute.start : attribute.end].lower()
            assert ENGLISH.attributes[word] == (attribute.kind, attribute.value)
        end = phrase.end


def test_what_is_told_keeps_number_and_attribute_together() -> None:
    text, swapped = "A red sun and two blue suns.", "A blue sun and two red suns."
    assert assertions(text, scenes()) != assertions(swapped, scenes())
    assert assertions(text, scenes()) == assertions("There are two blue suns. You can also see a red sun.", scenes())
    assert assertions("A sun. A sun.", scenes()) == assertions("A sun.", scenes())


def test_nouns_are_written_in_the_forms_that_the_vocabulary_has() -> None:
    assert [scenes().noun(name, True) for name in ("mouse", "snowman", "castle")] == ["mice", "snowmen", "castles"]
    assert ENGLISH.form("men", False) == "man" and ENGLISH.form("umbrellas", False) == "umbrella"
    short = general(Vocabulary("short", "1", {"cat": "cat", "scissors": "scissors"}))
    assert short.form("cat", True) is None and short.plural("scissors") is None
    assert [article(word) for word in ("European man", "uniform", "old man", "hourglass", "one-way sign")] == [
        "a", "a", "an", "an", "a",
    ]  # fmt: skip


def test_the_version_of_a_lexicon_names_both_its_parts() -> None:
    assert ENGLISH.version == "general@2:demo@1" and scenes().version != ENGLISH.version
