"""Hallucinations that are put into a text."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rewriting_kit import ENGLISH, box, described, facts, indices, thing, true_text

from pipeline.rewriting.correct import by_rules as correct
from pipeline.rewriting.inject import by_rules
from pipeline.rewriting.restyle import same_facts
from pipeline.scenes import prompts
from pipeline.scenes.scene_words import scenes
from pipeline.scenes.vocabulary import THEMES
from pipeline.scenes.world import scene
from reward.text.cooccurrence import Cooccurrence
from reward.text.fact_findings import by_facts, hallucinations
from reward.text.noun_phrases import assertions, read
from reward.text.sentences import split
from reward.text.types import KINDS, Kind, Problem, Rewrite, apply

SEEN = Cooccurrence.of((prompts.facts(scene(0, index)) for index in range(200)), scenes())
kinds = st.sets(st.sampled_from(KINDS), min_size=1).map(lambda some: tuple(sorted(some)))


def of(index: int) -> tuple[str, dict[str, Any]]:
    """A true description that names everything."""
    shown = scene(21, index)
    return true_text(shown, random.Random(index)), prompts.facts(shown)


@given(indices, indices, kinds)
def test_a_fault_more_is_in_the_text_and_it_is_of_a_wanted_kind(index: int, seed: int, wanted: Any) -> None:
    text, truth = of(index)
    made = by_rules(text, truth, scenes(), SEEN, seed, wanted)
    if isinstance(made, Problem):
        assert made.kind == "nothing_to_change" and not {"object", "attribute", "count"} & set(wanted)
        return
    (bad,) = hallucinations(by_facts(made.text, truth, scenes()))
    assert bad.kind in wanted
    assert made.text == apply(text, made.edits) and made.edits
    assert made == by_rules(text, truth, scenes(), SEEN, seed, wanted)


@given(indices, indices, kinds, st.integers(1, 3))
def test_correcting_what_was_injected_restores_the_facts(index: int, seed: int, wanted: Any, faults: int) -> None:
    text, truth = of(index)
    made = by_rules(text, truth, scenes(), SEEN, seed, wanted, faults)
    if isinstance(made, Rewrite):
        back = correct(made.text, by_facts(made.text, truth, scenes()), truth, scenes(), absent="replace")
        assert isinstance(back, Rewrite), (text, made.text)
        assert same_facts(back.text, text, scenes()) is None, (text, made.text, back.text)


@given(indices, indices)
def test_an_object_that_was_added_is_taken_off_to_the_letter(index: int, seed: int) -> None:
    text, truth = of(index)
    made = by_rules(text, truth, scenes(), SEEN, seed, ("object",))
    assert isinstance(made, Rewrite)
    if len(read(made.text, scenes())) > len(read(text, scenes())):
        back = correct(made.text, by_facts(made.text, truth, scenes()), truth, scenes())
        assert isinstance(back, Rewrite) and back.text == text


@given(indices, indices, kinds)
def test_a_text_with_faults_keeps_them_and_other_sentences_stay(index: int, seed: int, wanted: Any) -> None:
    text, truth, _ = described(index)
    made = by_rules(text, truth, scenes(), SEEN, seed, wanted)
    if isinstance(made, Rewrite):
        before, after = (len(hallucinations(by_facts(version, truth, scenes()))) for version in (text, made.text))
        assert after == before + 1
        old, new = ([sentence.text for sentence in split(of_)] for of_ in (text, made.text))
        assert sum(sentence not in new for sentence in old) <= 1 and len(new) <= len(old) + 1


def test_all_kinds_and_both_ways_of_wrong_objects_come_up() -> None:
    by_kind: dict[Kind | None, int] = {}
    longer = 0
    for seed in range(200):
        text, truth = of(seed)
        made = by_rules(text, truth, scenes(), SEEN, seed)
        assert isinstance(made, Rewrite)
        (bad,) = hallucinations(by_facts(made.text, truth, scenes()))
        by_kind[bad.kind] = by_kind.get(bad.kind, 0) + 1
        longer += len(assertions(made.text, scenes())) > len(assertions(text, scenes()))
    assert set(by_kind) == set(KINDS) and min(by_kind[kind] for kind in ("object", "attribute", "count")) > 30
    assert 0.2 * by_kind["object"] < longer < 0.8 * by_kind["object"] + by_kind["count"]


def test_wrong_objects_are_mostly_those_that_go_along_with_the_true_ones() -> None:
    typical = 0
    for seed in range(100):
        shown = scene(22, seed)
        made = by_rules(true_text(shown, random.Random(seed)), prompts.facts(shown), scenes(), SEEN, seed, ("object",))
        assert isinstance(made, Rewrite)
        (name,) = {phrase.name for phrase in read(made.text, scenes())} - shown.names
        typical += name in THEMES[shown.theme] or set(THEMES[shown.theme]) <= shown.names
    assert typical >= 65  # of 30 objects, at most five are of the theme


@pytest.mark.parametrize(
    ("text", "kind", "texts"),
    [
        ("There is a dog.", "count", {"There are two dogs.", "There are three dogs."}),
        ("Two dogs run.", "attribute", set()),
        ("The cup is red.", "attribute", None),
        ("The dog is to the left of the cup.", "relation", {"The dog is to the right of the cup."}),
        ("There is a dog and a cup.", "relation", set()),
        ("A cup on the right.", "relation", {"A cup on the left."}),
    ],
)
def test_english_is_made_wrong_so(text: str, kind: Kind, texts: set[str] | None) -> None:
    truth = facts(thing("dog", 1, boxes=[box(0.2, 0.5)]), thing("cup", 1, "red", boxes=[box(0.8, 0.5)]))
    results = set()
    for seed in range(20):
        made = by_rules(text, truth, ENGLISH, Cooccurrence(), seed, (kind,))
        results.add(made.text if isinstance(made, Rewrite) else made.kind)
    if kind == "count":  # "a dog" says no number in English; one must be said
        assert results == {"nothing_to_change"}
    elif texts is None:
        assert len(results) > 3 and all(made.startswith("The cup is ") for made in results) and text not in results
    else:
        assert results == (texts or {"nothing_to_change"}) or (
            kind == "relation"
            and all("cup on the left" in text_made or "cup on the left side" in text_made for text_made in results)
        )


def test_an_added_object_joins_the_list_as_the_list_is_written() -> None:
    truth = facts(thing("dog", 1), thing("cup", 1), thing("boat", 1))
    results = set()
    for seed in range(60):
        made = by_rules("There is a dog, a cup, and a boat.", truth, ENGLISH, Cooccurrence(), seed, ("object",))
        assert isinstance(made, Rewrite)
        results.add(re.sub(r"\ban? (?!dog|cup|boat)\w+", "a THING", made.text))
    assert results == {
        "There is a dog, a cup, a boat, and a THING.",
        "There is a THING, a cup, and a boat.",
        "There is a dog, a THING, and a boat.",
        "There is a dog, a cup, and a THING.",
    }


@pytest.mark.parametrize(
    ("truth", "complete"),
    [(None, True), ({"objects": []}, True), ({"captions": ["A dog."]}, True),
     ({"regions": [{"phrase": "a dog", "box": box(0.5, 0.5)}]}, False)],
)  # fmt: skip
def test_where_it_is_not_known_what_is_absent_nothing_is_injected(truth: Any, complete: bool) -> None:
    made = by_rules("There is a dog.", truth, ENGLISH, Cooccurrence(), 0, complete=complete)
    assert isinstance(made, Problem) and made.kind == "no_facts"
    some = {"regions": [{"phrase": "a dog", "box": box(0.5, 0.5)}]}
    assert isinstance(by_rules("There is a dog.", some, ENGLISH, Cooccurrence(), 0), Rewrite)


@pytest.mark.parametrize(
    "text",
    ["\u8fd9\u5f20\u56fe\u7247\u91cc\u6709\u4e00\u53ea\u72d7\u3002", "Ein Hund sitzt auf einer Bank und schl\u00e4ft.",
     "Ein Boat ist auf dem See, und die Sonne scheint.",
     "It is a quiet day.", "| a | b |", "Nothing is to be seen.", "There is no dog."],
)  # fmt: skip
@pytest.mark.parametrize("kind", KINDS)
def test_into_what_was_not_understood_nothing_is_injected(text: str, kind: Any) -> None:
    truth = facts(thing("dog", 1), thing("cup", 1), thing("boat", 1))
    for seed in range(8):
        made = by_rules(text, truth, ENGLISH, Cooccurrence(), seed, (kind,))
        assert isinstance(made, Problem) and made.kind == "nothing_to_change"


def test_a_sentence_is_added_behind_the_end_of_one_alone() -> None:
    truth = facts(thing("dog", 1), thing("cup", 1))
    for text, added in (("A dog sits beside a cup", False), ("A dog sits beside a cup.", True)):
        made = [by_rules(text, truth, ENGLISH, Cooccurrence(), seed, ("object",)) for seed in range(20)]
        assert any(isinstance(of, Rewrite) and "There is also" in of.text for of in made) == added


# ------------------------------------------------------------------------------------------------------- co-occurrence


def test_counts_of_parts_add_up_and_survive_writing() -> None:
    parts = [[prompts.facts(scene(0, i)) for i in range(n, n + 20)] for n in (0, 20)]
    whole = Cooccurrence.of([row_counts for part in parts for row_counts in part], scenes())
    added = Cooccurrence.of(parts[0], scenes()) + Cooccurrence.of(parts[1], scenes())
    assert added == whole and added.as_json() == whole.as_json()
    assert Cooccurrence.from_json(whole.as_json()) == whole
    assert whole.images["sun"] == sum("sun" in scene(0, i).names for i in range(40))


def test_an_image_counts_once_for_an_object_whatever_its_number() -> None:
    seen = Cooccurrence.of([facts(thing("cup", 5, "red"), thing("cup", 1, "blue"), thing("dog", 1)), None], ENGLISH)
    assert seen.images == {"cup": 1, "dog": 1} and seen.together("dog", "cup") == 1 == seen.together("cup", "dog")
    assert seen.values == {("cup", "colour", "red"): 1, ("cup", "colour", "blue"): 1}


def test_a_table_that_cannot_be_read_is_an_error_with_the_remedy() -> None:
    with pytest.raises(ValueError, match="count it again"):
        Cooccurrence.from_json("[1, 2]")
