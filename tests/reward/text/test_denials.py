"""What a sentence denies, it does not say to be there."""

from __future__ import annotations

import time

import pytest

from reward.text.coco_vocabulary import VOCABULARY
from reward.text.denials import denied_spans
from reward.text.fact_findings import by_facts, hallucinations
from reward.text.lexicon import general
from reward.text.noun_phrases import affirmed, read

COCO = general(VOCABULARY)


def named(text: str) -> list[str]:
    return [phrase.name for phrase in read(text, COCO)]


@pytest.mark.parametrize(
    "text",
    [
        "The image does not contain any dogs.", "The picture doesn't show any people, dogs, or cats.",
        "There does not appear to be a dog in the image.", "There don\u2019t seem to be any cars.",
        "I cannot see a dog or a cat.", "I can't see any dogs in this picture.", "You won't find a dog here.",
        "There are no trees or cars in the image.", "There are no visible texts, people, or traffic lights.",
        "There are no people riding horses.", "The road is free of cars.", "The street is devoid of people or cars.",
        "There is an absence of people.", "The photo lacks a dog.", "There is no sign of a dog.", "No lack of sleep.",
        "A dog is not visible in the image.", "Dogs and cats are not present.", "The dogs aren't shown.",
        "People cannot be seen here.", "A dog is absent.", "Dogs are not in the picture.",
    ],
)  # fmt: skip
def test_what_is_denied_is_not_named(text: str) -> None:
    assert named(text) == [] and affirmed(text, VOCABULARY) == []
    # With facts that have none of it, this is no hallucination, and nothing of it is cut from the text.
    assert not hallucinations(by_facts(text, {"objects": [{"name": "clock"}]}, COCO))


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("The image does not show the dog's tail.", ["dog"]),
        ("The image shows not only a dog but also a cat.", ["dog", "cat"]),
        ("The image doesn't just show a dog.", ["dog"]),
        ("The image does not show any people, but it shows a cat.", ["cat"]),
        ("There aren't any cars or people visible, only a dog.", ["dog"]),
        ("The man does not wear a tie or a helmet but a backpack.", ["person", "backpack"]),
        ("Instead of a dog, there is a cat.", ["cat"]),
        ("Instead of walking, people ride horses.", ["person", "horse"]),
        ("A street with no trees, cars, or people, and a dog.", ["dog"]),
        ("There is no snow and people are walking on the street.", ["person"]),
        ("There are no people except a man.", ["person"]),
        ("No one but a man is there, no doubt that a dog is.", ["person", "dog"]),
        ("The face of the dog is not visible.", ["dog"]),
        ("The number on the bus is not visible.", ["bus"]),
        ("The dog is not fully visible. The man is not shown in full.", ["dog", "person"]),
        ("The dog is not on the couch.", ["dog", "couch"]),
        ("Not far from a dog is a cat.", ["dog", "cat"]),
        ("The room is free of furniture, and a dog sleeps.", ["dog"]),
        ("Feel free to look at the dog, which is free. An empty bottle.", ["dog", "bottle"]),
    ],
)
def test_what_is_not_denied_is_named(text: str, there: list[str]) -> None:
    assert named(text) == there


def test_a_long_list_is_read_at_once() -> None:
    began = time.perf_counter()
    assert list(denied_spans("There are no " + ", ".join(["any odd thing"] * 4000) + ", and a dog."))
    assert list(denied_spans("There are no " + "very " * 10_000 + "old dogs."))
    assert time.perf_counter() - began < 5
