"""The words of ``vocabulary: coco``."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward.text.coco_vocabulary import NAMES, VOCABULARY, plural


def named(text: str) -> list[str]:
    return [mention.name for mention in VOCABULARY.mentions(text)]


def test_every_category_is_found_by_its_name_and_by_its_plural() -> None:
    assert len(NAMES) == len(set(NAMES)) == 80 and VOCABULARY.objects == set(NAMES)
    for name in NAMES:
        assert named(f"There is a {name}.") == named(f"There are {plural(name)}.") == [name]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("A man and two women beside a sofa and a television.", ["person", "person", "couch", "tv"]),
        ("Hot dogs and a teddy bear.", ["hot dog", "teddy bear"]),
        ("Baby elephants.", ["elephant"]),
        ("Train tracks, a bus stop and dog food.", []),
        ("A train on the train tracks.", ["train"]),
        ("An orange cat peels an orange.", ["cat", "orange"]),
        ("A telephone table, the sun and a plant.", []),
        ("A zebra crossing, toilet paper, a bed of flowers and a bear hug.", []),
    ],
)
def test_texts(text: str, names: list[str]) -> None:
    assert named(text) == names


@pytest.mark.parametrize("word", ["orange", "remote"])
def test_a_word_that_is_an_adjective_names_a_thing_only_where_it_stands_for_one(word: str) -> None:
    thing = ("There is an {} on the table.", "One {}.", "A cup, an {}, and a spoon", "The {} is ripe.", "A PEELED {}!",
             "a fork and an {}", "An {} and a cup are here.", "Half an {} next to a cup.")  # fmt: skip
    for text in thing:
        assert word in named(text.format(word.upper() if text.isupper() else word)), text
    other = ("A man in an {} shirt.", "The wall is {}.", "An {} and white wall.", "It is bright {}.", "Dressed in {}.",
             "A {} village.", "the {} tiles", "A shade of {}.", "an {}-coloured wall", "{}",
             "A light {}, nearly red.")  # fmt: skip
    for text in other:
        assert word not in named(text.format(word)), text
    assert named(f"Two {plural(word)}.") == [word]


@given(
    st.lists(
        st.sampled_from(["orange", "remote", "cat", "an", "the", "is", "and", ".", ",", "shirt", "\u00e9"]), max_size=9
    )
)
def test_adjectives_are_read_alike_at_once_and_one_by_one(words: list[str]) -> None:
    text = " ".join(words)
    names = sorted(VOCABULARY.objects)
    _, things = VOCABULARY.named_objects(pa.array([text]))
    assert sorted(names[thing] for thing in things) == sorted(named(text))


@given(st.lists(st.sampled_from([*VOCABULARY.synonyms, *VOCABULARY.ignored, "the", "red", "\u00e9"]), max_size=8))
def test_texts_at_once_name_what_they_name_one_by_one(words: list[str]) -> None:
    text = " ".join(words)
    _, things = VOCABULARY.named_objects(pa.array([text]))
    names = sorted(VOCABULARY.objects)
    assert sorted(names[thing] for thing in things) == sorted(named(text))
