"""Edits, and the texts that come of them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward.text.types import Edit, Rewrite, apply

words = st.lists(st.sampled_from(["a", "an", "red", " ", ", ", ".", "sun", "\n"]), max_size=12).map("".join)


@given(words, words, words, words, words)
def test_the_edits_make_the_text_and_touch_nothing_else(a: str, b: str, c: str, new: str, other: str) -> None:
    parent = a + b + c
    first, second = (len(a), len(a + b), new), (len(a + b), len(parent), other)  # they touch
    made = Rewrite.of(parent, [first, second])
    assert made.text == a + new + other == apply(parent, made.edits)
    assert all(parent[edit.start : edit.end] == edit.old != edit.new for edit in made.edits)
    assert all(edit.end <= then.start for edit, then in zip(made.edits, made.edits[1:], strict=False))
    assert all(edit.start >= len(a) for edit in made.edits)


def test_an_edit_is_of_words_and_leaves_out_those_that_stay() -> None:
    made = Rewrite.of("There is a red sun.", [(0, 19, "There are two red suns.")])
    assert made.edits == (Edit(6, 10, "is a", "are two"), Edit(15, 18, "sun", "suns")) or made.edits == (
        Edit(6, 8, "is", "are"), Edit(9, 10, "a", "two"), Edit(15, 18, "sun", "suns"),
    )  # fmt: skip


def test_what_changes_nothing_is_no_edit() -> None:
    assert Rewrite.of("a sun", [(0, 5, "a sun")]) == Rewrite("a sun", ())


@pytest.mark.parametrize(
    ("edits", "part"),
    [([Edit(0, 3, "abc", ""), Edit(2, 4, "cd", "")], "two edits change character 2"), ([Edit(0, 1, "x", "")], "'x'")],
)
def test_edits_that_do_not_fit_are_errors(edits: list[Edit], part: str) -> None:
    with pytest.raises(ValueError, match=part):
        apply("abcd", edits)
