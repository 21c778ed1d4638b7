"""Which questions take the scene for granted."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.scenes import grammar
from pipeline.scenes.world import scene
from pipeline.sources.imagine.leading import leading

TEXT = "A rustic kitchen with copper pots above an old stove, and a sleeping cat on the wooden table."

ASKS = [
    "Describe the image in detail.",
    "What is in the picture?",
    "What colour is the stove?",
    "How many pots are there?",
    "How big is the table?",
    "Is there a sleeping cat on the wooden table?",
    "Are there copper pots above an old stove in the image?",
    "Can you see a rustic kitchen with copper pots?",
    "What is the person in the foreground doing?",
    "What mood does this scene convey?",
    "List everything on the left side of the picture.",
    "Write a short story about the image.",
    "Which animal is shown?",
]
ASSERTS = [
    ("Why is the cat asleep?", "asks 'why'"),
    ("How do the pots contribute to the mood?", "asks 'how'"),
    ("Explain how this kitchen is heated.", "asks 'how'"),
    ("What is the sleeping cat lying on?", "'sleeping cat'"),
    ("What hangs between the pots and the stove?", "'stove'"),
    ("Given copper pots above an old stove, what could be cooked?", "repeats 'copper pots above an'"),
    ("What stands near the wooden table?", "'wooden table'"),
]


@pytest.mark.parametrize("question", ASKS)
def test_a_question_that_asks_is_let_through(question: str) -> None:
    assert leading(question, TEXT) is None


@pytest.mark.parametrize(("question", "why"), ASSERTS)
def test_a_question_that_asserts_is_flagged_with_what_it_asserts(question: str, why: str) -> None:
    assert why in (leading(question, TEXT) or "")


@pytest.mark.parametrize("question", grammar.DESCRIBE)
def test_built_in_prompts_never_lead(question: str) -> None:
    assert leading(question, TEXT) is None


@pytest.mark.parametrize("question", [*ASKS, *(question for question, _ in ASSERTS)])
def test_case_and_spacing_do_not_matter(question: str) -> None:
    assert leading(question.upper().replace(" ", "  "), TEXT.upper()) == leading(question, TEXT)


@given(st.integers(0, 10_000))
def test_a_question_whether_something_is_there_never_leads_though_the_text_says_it(index: int) -> None:
    picture = scene(5, index)
    text = grammar.describe(grammar.reading_order(picture), random.Random(index))
    for kind in ("existence", "attribute", "count"):
        assert leading(grammar.question(picture, kind, random.Random(index)).text, text) is None
    assert leading(f"Why so? {text}", text) is not None and leading(f"Given this: {text} What now?", text) is not None
