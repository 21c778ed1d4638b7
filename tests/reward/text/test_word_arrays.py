from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from reward.text.word_arrays import split, table

#: Spaces separate words; everything else is part of one.
AT_SPACES = table(lambda sign: "" if sign == " " else sign.lower(), above=True)
TEXTS = st.lists(st.text(alphabet="aB .é\0\U0001f602", max_size=12), max_size=5)


@given(TEXTS)
def test_words_are_those_of_every_text_on_its_own(texts: list[str]) -> None:
    words_of = split(pa.array(texts, pa.string()), AT_SPACES)
    alone = [text.replace("B", "b").split(" ") for text in texts]
    expected = [(i, word) for i, words in enumerate(alone) for word in words if word]
    assert list(zip(words_of.text.tolist(), words_of.values.to_pylist(), strict=True)) == expected
    assert words_of.counts.tolist() == [sum(bool(word) for word in words) for words in alone]
    assert words_of.join().to_pylist() == [" ".join(word for word in words if word) for words in alone]
    source = bytes(words_of.source)
    spelt = [source[a:b].decode() for a, b in zip(words_of.starts, words_of.ends, strict=True)]
    assert [word.replace("B", "b") for word in spelt] == [word for _, word in expected]


@given(TEXTS, st.integers(0, 3))
def test_a_slice_counts_as_what_it_is(texts: list[str], start: int) -> None:
    part = split(pa.array(["b a", *texts, None], pa.string()).slice(start), AT_SPACES)
    assert (
        part.join().to_pylist()
        == split(pa.array(["b a", *texts, ""][start:], pa.string()), AT_SPACES).join().to_pylist()
    )
