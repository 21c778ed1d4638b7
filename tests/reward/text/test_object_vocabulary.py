import pickle
import unicodedata
from itertools import pairwise
from operator import attrgetter

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reward.text.object_vocabulary import Mention, Vocabulary

KITCHEN = Vocabulary(
    "kitchen",
    "1",
    {
        "dog": "dog",
        "dogs": "dog",
        "hot dog": "hot dog",
        "hot dogs": "hot dog",
        "hot": "heat",
        "dining table": "table",
        "c++": "book",
        "rook": "castle",
    },
)


def names(text: str) -> list[str]:
    return [mention.name for mention in KITCHEN.mentions(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("a dog and two dogs", ["dog", "dog"]),
        ("a HOT  Dog\nand a hot\ndog", ["hot dog", "hot dog"]),  # case and white space do not matter
        ("hot dogs", ["hot dog"]),  # the longest form wins, nothing inside it counts again
        ("hot, dog", ["heat", "dog"]),
        ("dogma, hotdog, adog, dog_", []),  # whole words only
        ("dog's, dog--black, lap-dog, (dog)", ["dog", "dog", "dog", "dog"]),
        ("A dog-like, dog\u2010shaped, dog\u2011free thing", []),  # says what something else is like
        ("a hot-dog, Hot\u2010dogs, hot - dog", ["hot dog", "hot dog", "heat", "dog"]),
        ("a c++ c+++ book", ["book", "book"]),  # regular expression characters are plain characters
        ("a rook", ["castle"]),
        ("doğ dög", []),
    ],
)
def test_mentions(text, expected):
    assert names(text) == expected


def test_offsets_count_characters():
    text = "Ünder a 🌂: two Hot  Dogs."
    assert KITCHEN.mentions(text) == [Mention(15, 24, "Hot  Dogs", "hot dog")]
    assert text[15:24] == "Hot  Dogs"


def test_letters_whose_case_folds_oddly_do_not_break_matching():
    vocabulary = Vocabulary("v", "1", {"kiss": "kiss"})
    # U+0130, U+0131, U+017F and U+212A match i, s and k when case is ignored, yet lower() leaves them as they are.
    for text in ("K\u0130SS", "k\u0131ss", "ki\u017fs", "\u212aiss"):
        assert {mention.name for mention in vocabulary.mentions(text)} <= {"kiss"}


def test_canonical_names_count_as_themselves_even_if_no_text_can_say_them():
    assert KITCHEN.canonical("castle") == "castle"
    assert KITCHEN.canonical(" Dining  TABLE ") == "table"
    assert KITCHEN.canonical("zebra") is None and KITCHEN.canonical("Hot-Dogs") == "hot dog"
    assert KITCHEN.objects == {"dog", "hot dog", "heat", "table", "book", "castle"}


def test_conflicting_or_empty_forms_are_refused():
    with pytest.raises(ValueError, match="names both 'a' and 'b'"):
        Vocabulary("v", "1", {"Dog": "a", "dog ": "b"})
    with pytest.raises(ValueError, match="empty surface form"):
        Vocabulary("v", "1", {" ": "a"})
    assert Vocabulary("v", "1", {}).mentions("a dog") == []


def test_survives_pickling_after_use():
    KITCHEN.mentions("dog")
    assert pickle.loads(pickle.dumps(KITCHEN)).mentions("hot dog") == KITCHEN.mentions("hot dog")


SAID = ["dog", "dogs", "hot", "hot dog", "hot-dog", "dog-", "the", "and", "hotdog", ",", "."]


@given(st.lists(st.sampled_from(SAID), max_size=12))
def test_mentions_are_ordered_disjoint_and_say_what_stands_there(words):
    text = " ".join(words)
    mentions = KITCHEN.mentions(text)
    assert all(text[m.start : m.end] == m.surface for m in mentions)
    assert all(a.end <= b.start for a, b in pairwise(mentions))
    assert all(KITCHEN.canonical(m.surface) == m.name for m in mentions)


def counts(vocabulary, texts):
    """Per text the mentions of each object, as ``named`` finds them."""
    per_text = [dict.fromkeys(sorted(vocabulary.objects), 0) for _ in texts]
    for text, thing in zip(*vocabulary.named_objects(pa.array(texts, pa.string())), strict=True):
        per_text[text][sorted(vocabulary.objects)[thing]] += 1
    return per_text


PHRASES = Vocabulary(
    "phrases",
    "1",
    {"hot": "heat", "hot dog": "food", "hot dog stand": "shop", "dog": "dog", "stand still": "pose", "x-ray": "scan"},
)
#: The long s and the dotless i fit an ASCII text where case is ignored.
ODD = Vocabulary("odd", "1", {"\u017fun": "sun", "sk\u0131": "ski", "dog": "dog"})
WORDS = [
    "hot",
    "Hot",
    "dog",
    "DOGS",
    "stand",
    "still",
    "dining",
    "table",
    "c++",
    "X-Ray",
    "x-",
    "sun",
    "ski",
    "rook",
    "a",
]
SIGNS = [" ", "  ", "\n", "\x1c", "\v", ",", "-", "'", "_", "7", "\u00e9", "\u0131", "\u212a", "\u3000", "\0"]
PIECES = st.sampled_from([*WORDS, *SIGNS])


@pytest.mark.parametrize("vocabulary", [KITCHEN, PHRASES, ODD, Vocabulary("none", "1", {})], ids=attrgetter("name"))
@given(texts=st.lists(st.lists(PIECES, max_size=14).map("".join), max_size=4))
@example(texts=["hot", "dog"])
@example(texts=["hot dog stand still", "hot dog, stand", "", "a hot", " dog"])
@example(texts=["hot-dog", "dog-x hot dog", "hot-dog-stand", "hot dog-stand", "hot- dog", "x-ray-dog", "stand-x"])
def test_named_finds_the_very_mentions(vocabulary, texts):
    expected = [dict.fromkeys(sorted(vocabulary.objects), 0) for _ in texts]
    for of_text, text in zip(expected, texts, strict=True):
        for mention in vocabulary.mentions(text):
            of_text[mention.name] += 1
    assert counts(vocabulary, texts) == expected


def test_named_sees_a_slice_as_what_it_is():
    texts = pa.array(["a dog", "a rook", None, "two dogs, a table"])
    assert [len(part) for part in KITCHEN.named_objects(texts.slice(1, 1))] == [1, 1]
    assert KITCHEN.named_objects(texts.slice(3))[0].tolist() == [0]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"dog": ["dog", "dogs"]}, r"'dog' stands for \['dog', 'dogs'\].*\{\"dog\": \"dog\", \"dogs\": \"dog\"\}"),
        ({"dog": {"dogs": 1}}, "'dog' stands for"),
        ({"dog": None}, "'dog' stands for None"),
        ({"dog": " "}, "'dog' stands for ' '"),
        ({"dog": 3}, "'dog' stands for 3"),
        ({3: "dog"}, "3 stands for 'dog'"),
        ({"dogs": "dog", "dog": "animal"}, "'dog' names both 'animal' and 'dog'"),
        ({"puppy": "Dog", "hound": "dog"}, "'dog' names both 'Dog' and 'dog'"),
        ({"caf\u00e9": "a", "cafe\u0301": "b"}, "names both 'a' and 'b'"),
    ],
)
def test_a_word_that_means_nothing_or_two_things_is_refused(words, says):
    with pytest.raises(ValueError, match=says):
        Vocabulary("v", "1", words)


def test_ignored_forms_name_nothing():
    vocabulary = Vocabulary("v", "1", {"train": "train", "tracks": "tracks"}, frozenset({"train tracks", "tracks"}))
    assert vocabulary.objects == {"train", "tracks"}
    assert [mention.name for mention in vocabulary.mentions("a train on train tracks")] == ["train"]
    assert Vocabulary("v", "1", {"x": "x"}, frozenset({"y"})).canonical("y") is None


@pytest.mark.parametrize("way", ["NFC", "NFD"])
@pytest.mark.parametrize("written", ["NFC", "NFD"])
def test_an_accent_is_one_whether_composed_or_not(way, written):
    forms = {unicodedata.normalize(way, "caf\u00e9"): "coffee house", "cafe": "lorry"}
    text = unicodedata.normalize(written, "a caf\u00e9 here")
    assert [mention.name for mention in Vocabulary("v", "1", forms).mentions(text)] == ["coffee house"]
