"""What a writer says about its task is no text. The first answers are of a model of 135 million parameters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.rewriting.off_task import off_task

ORIGINAL = "The image shows two green anchors and a blue wheel."


@pytest.mark.parametrize(
    "answer",
    [
        "The image shows two green anchors and a blue wheel.\n\nThis means that it should be read in the same way.",
        "The text is: Unfortunately, there are two green anchors. You can also see a blue wheel.",
        "> There are two green anchors and a blue wheel.",
        'You can change this to: "Two green anchors and a blue wheel are shown."',
        "The phrase two green anchors and a blue wheel is a metaphor for life, happiness and love.",
        "The text is a reference to a picture of two green anchors and a blue wheel, with an unexpected twist.",
        "Here's a revised version: One sees two green anchors and a blue wheel.",
        "Sure! One sees two green anchors and a blue wheel.",
        "**Two green anchors** and a blue wheel.",
        "One sees two green anchors and a blue wheel. No further details.",
        "One sees two green anchors and a blue wheel, which is all that anyone at all who looked at it could see",
        "A wheel.",
        "1. One sees two green anchors. 2. One sees a blue wheel.",
        "Output: One sees two green anchors and a blue wheel.",
        "One sees two green anchors and a blue wheel. (It means the same.)",
        "One sees two green anchors and a blue wheel. Is that fine?",
        "As an AI, one sees two green anchors and a blue wheel.",
        "Das Bild zeigt zwei gr\u00fcne Anker, und es gibt ein blaues Rad.",
        "\u56fe\u4e2d\u6709 two green anchors and a blue wheel.",
    ],
)
def test_an_answer_about_the_task_is_none(answer: str) -> None:
    assert off_task(answer, ORIGINAL)


@pytest.mark.parametrize(
    ("answer", "original"),
    [
        ("In this picture you can see a blue wheel and two green anchors.", ORIGINAL),
        ("One sees the dog's bowl (a red one), 3 cats and a sign.", "There are a dog's red bowl, 3 cats and a sign."),
        ("In this picture one can see a cat.", "There is a cat."),
        ("In 2012: a wheel. There are 3. Is it blue?", "In 2012: there are 3. Blue? A wheel."),
        ("A wheel, which is blue", "Blue wheel"),
        ('One reads "STOP" there.\nA version of it hangs above.', 'There is "STOP".\nAbove it is another version.'),
    ],
)
def test_another_wording_is_one(answer: str, original: str) -> None:
    assert off_task(answer, original) is None


def test_a_correction_may_leave_out_nearly_everything() -> None:
    assert off_task("A wheel.", ORIGINAL, shorter=True) is None
    assert off_task(ORIGINAL * 3, ORIGINAL, shorter=True)


@given(st.text(min_size=1))
def test_a_text_is_in_its_own_place(text: str) -> None:
    assert off_task(text, text) is None
