"""Scores of everything that facts decide about."""

from __future__ import annotations

from typing import Any

import pytest
from rewrite_kit import FACTS, FALSE, TRUE, candidates

from pipeline.scenes.scene_words import scenes
from reward.scorers.facts import FactScorer


def scored(text: str, facts: Any = FACTS) -> dict[str, float | None]:
    row = {"id": "a", "images": [], "prompt": [], "facts": facts, "candidates": candidates(text)}
    return {name: values[0][0] for name, values in FactScorer(scenes()).score([row]).items()}


def test_wrong_colours_and_numbers_count_and_not_only_objects() -> None:
    assert scored(TRUE)["facts.wrong"] == 0
    assert scored(FALSE)["facts.wrong"] == 1
    assert scored(TRUE.replace("red", "green"))["facts.wrong"] == 1
    assert scored(TRUE.replace("two", "three"))["facts.wrong"] == 1
    right = scored(TRUE)["facts.right"]
    assert right is not None and right >= 4


@pytest.mark.parametrize("facts", [None, {}, {**FACTS, "answer": "yes"}, {"objects": [], "captions": ["A sun."]}])
def test_where_nothing_is_known_and_of_questions_there_is_no_score(facts: Any) -> None:
    assert set(scored(TRUE, facts).values()) == {None}


def test_the_version_has_the_words_and_what_the_facts_are_taken_for() -> None:
    whole, incomplete = FactScorer(scenes()), FactScorer(scenes(), complete=False)
    assert scenes().version in whole.version and whole.version != incomplete.version
