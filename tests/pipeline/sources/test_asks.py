"""What a weak writer puts in the place of questions. The first are a model's of 135 million parameters."""

from __future__ import annotations

import random

import pytest

from pipeline.scenes import grammar
from pipeline.scenes.prompts import KINDS
from pipeline.scenes.world import scene
from pipeline.sources.imagine.asks import no_question
from pipeline.sources.imagine.instruct import questions


@pytest.mark.parametrize(
    "text",
    [
        "Welcome to our virtual adventure, I'm Jack. What can I do for you today?",
        "Would you like to ask a question about something, or would you like to request your image to be edited?",
        "The queen is the only right color and is not a bishop.",
        "This description is not actually a person, but it serves as a reference to the skull.",
        "Why is the user asking about the image?",
        "What is this? (boring question)",
        "I'm sorry for the error, but I can help you with that.",
        "Is there anything else I can help with?",
        "The image depicts a black snowman, while the brown monkey is a brown monkey.",
        "The user asked for details about two red snowmen, so I'll answer two questions.",
    ],
)
def test_what_asks_nothing_is_flagged(text: str) -> None:
    assert no_question(text)


@pytest.mark.parametrize(
    "text",
    [
        "What is the image?",
        "Describe the image in detail.",
        "Please list all animals, and say where each of them is.",
        "Count the boats in the picture.",
        'What does the sign say: "Stop"?',
        "\u63cf\u8ff0\u56fe\u50cf\u3002",
        "\u56fe\u4e2d\u6709\u4ec0\u4e48\uff1f",
        "Beschreibe das Bild.",
        "D\u00e9cris ce que tu vois.",
    ],
)
def test_what_asks_or_requests_is_not(text: str) -> None:
    assert no_question(text) is None


def test_no_built_in_prompt_is_flagged() -> None:
    asked = [*grammar.DESCRIBE]
    for index in range(50):
        asked += [grammar.question(scene(3, index), kind, random.Random(index)).text for kind in KINDS]
    assert [text for text in asked if no_question(text)] == []


def test_labels_are_no_part_of_a_question() -> None:
    assert questions("Question: What is left?\n2. Q: What is right?\nRequest 3: Count the boats.", 5) == [
        *("What is left?", "What is right?", "Count the boats.")
    ]
