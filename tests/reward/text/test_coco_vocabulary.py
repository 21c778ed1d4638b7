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
    ],
)
def test_texts(text: str, names: list[str]) -> None:
    assert named(text) == names


@given(st.lists(st.sampled_from([*VOCABULARY.synonyms, *VOCABULARY.ignored, "the", "red", "\u00e9"]), max_size=8))
def test_texts_at_once_name_what_they_name_one_by_one(words: list[str]) -> None:
    text = " ".join(words)
    _, things = VOCABULARY.named_objects(pa.array([text]))
    names = sorted(VOCABULARY.objects)
    assert sorted(names[thing] for thing in things) == sorted(named(text))
