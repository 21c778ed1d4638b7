"""SHR by facts: what is denied is not named, and every kind of fact counts."""

import pytest

from pipeline.scenes.scene_words import scenes
from reward.text.object_vocabulary import Vocabulary
from training.evaluation.benchmarks import shr

VOCABULARY = Vocabulary("demo", "1", {"sun": "sun", "boat": "boat", "boats": "boat"})
FACTS = {
    "objects": [
        {"name": "sun", "count": 1, "attributes": ["red"], "boxes": [[0.4, 0.4, 0.6, 0.6]]},
        {"name": "cup", "count": 2, "attributes": ["blue"], "boxes": [[0.0, 0.0, 0.2, 0.2], [0.8, 0.0, 1.0, 0.2]]},
    ]
}


@pytest.mark.parametrize(
    ("sentence", "verdict"),
    [
        ("A boat", "hallucination"),
        ("No boat is there", "cannot judge"),
        ("There is no boat and no boats", "cannot judge"),
        ("A sun without a boat", "correct"),
        ("No sun", "cannot judge"),
        ("A sun and boats", "hallucination"),
    ],
)
def test_what_is_denied_is_not_named(sentence, verdict):
    assert shr.by_facts(f"{sentence}.", frozenset({"sun"}), VOCABULARY) == [verdict]


@pytest.mark.parametrize(
    ("sentence", "verdict"),
    [
        ("There is a red sun", "correct"),
        ("There is a blue sun", "hallucination"),
        ("There are two suns", "hallucination"),
        ("There are two blue cups", "correct"),
        ("In the centre is a red sun", "correct"),
        ("In the bottom left corner is a red sun", "hallucination"),
        ("The image shows a red sun and a moon", "hallucination"),
        ("There is no moon", "cannot judge"),
        ("How calm", "cannot judge"),
    ],
)
def test_colours_numbers_and_places_count(sentence, verdict):
    assert shr.by_every_fact(f"{sentence}.", FACTS, scenes()) == [verdict]


def test_there_is_a_verdict_for_every_sentence():
    text = "A red sun. A red sun. A blue cup. How calm. A"
    assert len(shr.by_every_fact(text, FACTS, scenes())) == len(shr.sentences(text)) == 3
