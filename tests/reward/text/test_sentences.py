"""Where sentences begin and end."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from reward.text.sentences import split

PIECES = (
    "A sun.", "Mr. Po", "3.5", "e.g.", "...", '"Go!"', "\n", "\n- ", "1. ", " ", "it", "!", "?\u201d", "\u2026", "x",
)  # fmt: skip
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=12).map("".join)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("There is a sun. There is also a red cup.", ["There is a sun.", "There is also a red cup."]),
        ("A mast of 2.5 m. It is old", ["A mast of 2.5 m.", "It is old"]),
        ("Fruit, e.g. an apple, lies there. Mr. Smith and Dr. J. Doe eat.",
         ["Fruit, e.g. an apple, lies there.", "Mr. Smith and Dr. J. Doe eat."]),
        ("Cups, plates, etc. on a table. Cups, etc. A dog.",
         ["Cups, plates, etc. on a table.", "Cups, etc.", "A dog."]),
        ('A sign says "Stop. Go back." and a man waits. "No!" he says.',
         ['A sign says "Stop. Go back." and a man waits.', '"No!" he says.']),
        ('It reads "Stop!" There is a dog.', ['It reads "Stop!"', "There is a dog."]),
        ("(It rains.) A dog sleeps!! Really?", ["(It rains.)", "A dog sleeps!!", "Really?"]),
        ("A dog... and a cat. A bird\u2026 A cow... The end.",
         ["A dog... and a cat.", "A bird\u2026", "A cow...", "The end."]),
        ("the sun shines. a dog sleeps.", ["the sun shines.", "a dog sleeps."]),
        ("What one sees:\n- A red sun\n* Two boats.\n3) A cup", ["What one sees:", "A red sun", "Two boats.", "A cup"]),
        ("1. A sun.\r\n2. A boat. It sails.", ["A sun.", "A boat.", "It sails."]),
        ("**A sun.** **A boat.**", ["**A sun.**", "**A boat.**"]),
        ("A line\nand another", ["A line", "and another"]),
        ("---\n\n...\nA sun.", ["A sun."]),
        ("", []),
        (" \n ", []),
    ],
)  # fmt: skip
def test_a_text_falls_into_these_sentences(text: str, parts: list[str]) -> None:
    assert [sentence.text for sentence in split(text)] == parts


@given(texts)
def test_sentences_and_gaps_together_are_the_text(text: str) -> None:
    at, whole = 0, ""
    for sentence in split(text):
        assert at <= sentence.start < sentence.end
        assert sentence.text == text[sentence.start : sentence.end] == sentence.text.strip()
        whole += text[at : sentence.start] + text[sentence.start : sentence.end]
        at = sentence.end
    assert whole + text[at:] == text


@given(texts)
@example("1. !")
def test_no_letter_is_lost_but_that_of_a_list_item(text: str) -> None:
    outside, at = "", 0
    for sentence in split(text):
        outside += text[at : sentence.start] + "\n"
        at = sentence.end
    for line in (outside + text[at:]).splitlines():
        letters = [sign for sign in line if sign.isalnum()]
        assert not letters or re.fullmatch(r"\s*\(?(?:\d{1,3}|[a-zA-Z])[.)]\W*", line)
