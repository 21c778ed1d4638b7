"""Corrections by a model."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rewriting_kit import ENGLISH, facts, thing

from pipeline.rewriting.corrector import question, read, still_wrong, verify
from reward.asking.protocol import Answer, Question
from reward.text.fact_findings import at, by_facts
from reward.text.sentences import split
from reward.text.types import Finding, Problem, Rewrite, apply

TEXT = "A cat sits.  Two dogs run. It rains."
PARTS = [sentence.text for sentence in split(TEXT)]


def flag(*numbers: int, text: str = TEXT) -> list[Finding]:
    parts = split(text)
    return [Finding(n, parts[n].start, parts[n].end, "hallucination", None, parts[n].text, "so it is") for n in numbers]


def answer(*lines: tuple[int, str | None]) -> Answer:
    return Answer("\n".join(json.dumps({"sentence": number, "text": text}) for number, text in lines))


def test_the_model_reads_the_sentences_what_is_wrong_and_what_is_known() -> None:
    made = question(TEXT, flag(1), facts(thing("dog", 1)), images=False, max_tokens=77)
    assert isinstance(made, Question) and (made.max_tokens, made.images) == (77, False)
    lines = made.text.splitlines()
    assert all(line in lines for line in ("> 2: Two dogs run.", "> object: dog, number 1", "> sentence 2. so it is"))
    none = question(TEXT, [], None)
    assert isinstance(none, Problem) and none.kind == "nothing_wrong"


@pytest.mark.parametrize(
    ("reply", "text"),
    [
        (answer((2, "One dog runs.")), "A cat sits.  One dog runs. It rains."),
        (answer((2, None)), "A cat sits.  It rains."),
        (answer((1, PARTS[0]), (2, "One dog\nruns."), (3, PARTS[2])), "A cat sits.  One dog runs. It rains."),
        (
            Answer('```json\n[\n {"sentence": 2,\n  "text": "One dog runs."},\n]\n```'),
            "A cat sits.  One dog runs. It rains.",
        ),
        (answer((2, "One dog runs."), (2, "One dog runs.")), "A cat sits.  One dog runs. It rains."),
        (
            answer((2, "One dog runs")),
            "A cat sits.  One dog runs. It rains.",
        ),  # or it would be one sentence with the next
        (
            Answer("<think>Is {it} one?</think>\n" + str(answer((2, "One dog runs.")).text)),
            "A cat sits.  One dog runs. It rains.",
        ),
        *(
            (answer((2, none)), "A cat sits.  It rains.")
            for none in ("N/A", "null", "(removed)", "...", "-", "Not visible.")
        ),
    ],
)
def test_only_the_flagged_sentence_changes(reply: Answer, text: str) -> None:
    made = read(reply, TEXT, flag(1))
    assert isinstance(made, Rewrite) and made.text == text == apply(TEXT, made.edits)


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (answer((2, "One dog runs."), (1, "A dog sits.")), "touched_the_rest"),
        (answer((2, "One dog runs. A cow, too.")), "touched_the_rest"),
        (answer((2, PARTS[1])), "unchanged"),
        (answer((2, "The sentence should read: One dog runs.")), "off_task"),
        (answer((2, "> 2: One dog runs.")), "off_task"),
        (answer((2, "Incorrect.")), "off_task"),
        (answer((2, "\u6709\u4e00\u53ea\u72d7\u3002")), "off_task"),
        (answer((4, "x")), "unreadable"),
        (answer((2, "One dog runs."), (2, "A dog runs.")), "unreadable"),
        (answer((1, PARTS[0])), "unreadable"),
        (Answer("One dog runs."), "unreadable"),
        (Answer(""), "unreadable"),
        (Answer('{"sentence": 2, "text": 5}'), "unreadable"),
        (Answer('{"sentence": 2, "te', complete=False), "cut_off"),
        (Answer(error="timeout: slow"), "timeout"),
    ],
)
def test_any_other_answer_is_refused_with_the_reason(reply: Answer, kind: str) -> None:
    made = read(reply, TEXT, flag(1))
    assert isinstance(made, Problem) and made.kind == kind and made.message


def test_a_model_that_takes_everything_out_is_refused() -> None:
    made = read(answer((1, None)), "A cat.", flag(0, text="A cat."))
    assert isinstance(made, Problem) and made.kind == "nothing_left"


NO_DOG = "A man rides a bike. A brown dog sits near a red car. The sky is blue."


@pytest.mark.parametrize(
    ("correction", "kind"),
    [
        ("A red car sits near a brown dog.", "unchanged"),
        ("The brown dog and a cat sit near a car.", "unchanged"),
        ("A red car stands there.", None),
        ("There is no brown dog near the red car.", None),
        ("The brown dog is not present in the image.", None),
        ("A red car stands there instead of a brown dog.", None),
        ("A car with a brown dog-shaped sign stands there.", None),
    ],
)
def test_an_object_that_is_not_there_goes(correction: str, kind: str | None) -> None:
    bad = [at(NO_DOG, 20, 31, "hallucination", "no dog", "object")]
    made = read(answer((2, correction)), NO_DOG, bad)
    assert (made.kind if isinstance(made, Problem) else None) == kind


def test_what_is_no_better_by_the_facts_is_no_correction() -> None:
    known = facts(thing("cat", 1), thing("cup", 1))
    bad = by_facts("A dog. A cat.", known, ENGLISH)
    judged = [replace(finding, by="judge") for finding in bad]
    cases = {"A cup. A cat.": (None, None), "A bird. A cat.": ("cannot_correct", None)}
    for made, kinds in {**cases, "A bird and a dog. A cat.": ("cannot_correct", "cannot_correct")}.items():
        problems = [still_wrong("A dog. A cat.", found, made, known, ENGLISH) for found in (bad, judged)]
        assert tuple(problem and problem.kind for problem in problems) == kinds
    assert still_wrong("A dog. A cat.", bad, "A bird. A cat.", None, ENGLISH) is None


@pytest.mark.parametrize(
    ("proposed", "flagged", "kind"),
    [
        ("A cat sits.  One dog runs. It rains.", (1,), None),
        ("A cat sits. It rains.", (1,), None),
        ("It rains.", (0, 1), None),
        ("A cat sits.  Two dogs run.", (2,), None),
        ("A cat sits. Two dogs run. It rains.", (1,), None),  # white space next to it
        ("A cat sits. Two dogs run. It rains.", (2,), "touched_the_rest"),
        ("A cow sits.  One dog runs. It rains.", (1,), "touched_the_rest"),
        ("A cat sits.  One dog runs.", (1,), "touched_the_rest"),
        ("It rains. A cat sits.", (1,), "touched_the_rest"),
        ("A cat sits.  One dog runs. He barks. It rains.", (1,), "touched_the_rest"),
        ("A cat sits.One dog runs. It rains.", (1,), "touched_the_rest"),
        ("A cat sits. so it is It rains.", (2,), "touched_the_rest"),
        (TEXT, (1,), "unchanged"),
        (" ", (0, 1, 2), "nothing_left"),
        ("A cow.", (), "nothing_wrong"),
    ],
)
def test_a_whole_text_may_differ_in_flagged_sentences_alone(proposed: str, flagged: Any, kind: str | None) -> None:
    made = verify(TEXT, flag(*flagged), proposed)
    assert (made.kind if isinstance(made, Problem) else None) == kind
    assert isinstance(made, Problem) or made.text == proposed


@given(st.lists(st.sampled_from(["A cat.", "It rains!", "Two dogs run."]), min_size=1, max_size=5), st.data())
def test_a_change_of_any_other_sentence_is_found(parts: list[str], data: st.DataObject) -> None:
    text = " ".join(parts)
    flagged = data.draw(st.sets(st.integers(0, len(parts) - 1), min_size=1))
    new = [f"New {n}." if n in flagged else part for n, part in enumerate(parts)]
    made = verify(text, flag(*sorted(flagged), text=text), " ".join(new))
    assert isinstance(made, Rewrite) and made.text == " ".join(new)
    if len(flagged) < len(parts):
        touched = data.draw(st.sampled_from(sorted(set(range(len(parts))) - flagged)))
        new[touched] = "Something else."
        made = verify(text, flag(*sorted(flagged), text=text), " ".join(new))
        assert isinstance(made, Problem) and made.kind == "touched_the_rest"
