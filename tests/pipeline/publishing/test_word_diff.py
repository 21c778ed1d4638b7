"""Word diffs: what is left out of both texts is the same text, and no text takes long."""

from __future__ import annotations

import time

from hypothesis import given
from hypothesis import strategies as st

from pipeline.publishing.word_diff import Mark, differences, pieces

WORDS = st.lists(st.sampled_from(["a", "red", "Red", "sun", ",", ".", "it's", "日", " ", "\n"]), max_size=30).map(
    " ".join
)


def rest(text: str, spans: list[tuple[int, int]]) -> list[str]:
    """The words that are not in the spans."""
    for start, end in reversed(spans):
        text = f"{text[:start]} {text[end:]}"
    return text.casefold().split()


@given(WORDS, WORDS)
def test_without_what_differs_both_say_the_same(first, second):
    spans = differences(first, second)
    assert rest(first, spans[0]) == rest(second, spans[1])
    for text, changed in zip((first, second), spans, strict=True):
        assert all(0 <= start < end <= len(text) for start, end in changed)


@given(WORDS, st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=4))
def test_pieces_are_the_text(text, spans):
    within = [(min(a, b, len(text)), min(max(a, b), len(text))) for a, b in spans]
    parts = pieces(text, within, [Mark(*span, "why") for span in within if span[0] < span[1]])
    assert "".join(part.text for part in parts) == text
    assert all((part.why is not None) == part.changed for part in parts)


def test_equal_texts_do_not_differ():
    assert differences("A sun.", "A sun.") == ([], [])


def test_a_text_that_goes_round_in_circles_takes_no_time():
    started = time.process_time()
    changed, _ = differences("the " * 3000, "the a " * 1500)
    assert changed == [(0, 12_000)] and time.process_time() - started < 1
