"""A question of a benchmark with its truth, the pictures it is about, and what a model and a judge said to it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from reward.text.reasoning import without_reasoning

#: What ``pairs`` counts.
COUNTS = ("asked", "failed", "truncated")
#: An image as the prompts table has it: ``{"bytes": ..., "path": ...}``; a path without bytes is absolute.
Picture = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Question:
    """``id`` is unique in its suite. ``image`` is the picture's file name; answers about one picture are not
    independent, so it is the unit that intervals are drawn over. ``truth`` holds plain JSON, as its suite wants it.
    ``shown`` names the pictures that are shown where that is not ``image`` alone: several, or none."""

    id: str
    image: str
    prompt: str
    truth: Mapping[str, Any] = field(default_factory=dict)
    shown: tuple[str, ...] | None = None

    @property
    def images(self) -> tuple[str, ...]:
        """The names of the pictures that are shown, in order."""
        return (self.image,) if self.shown is None else self.shown


@dataclass(frozen=True, slots=True)
class Answer:
    """``text`` is None where no answer could be had. ``judgement`` is what a judge said of it, word for word."""

    text: str | None
    judgement: str | None = None
    finish_reason: str | None = None


def pairs(
    questions: Sequence[Question], answers: Mapping[str, Answer]
) -> tuple[list[tuple[Question, Answer, str]], dict[str, int]]:
    """(question, answer, its text) of every answer there is, and the counts ``asked``, ``failed`` and ``truncated``.
    Reasoning is no part of the text, nor of what a judge said (``reward.text.reasoning``).

    Raises:
        ValueError: an id is asked twice, or an answer is missing or was never asked for.
    """
    ids = Counter(question.id for question in questions)
    twice = next((id for id, count in ids.items() if count > 1), None)
    if twice is not None:
        raise ValueError(f"id {twice!r} is asked twice; give every question an id of its own")
    odd = sorted(ids.keys() ^ answers.keys())
    if odd:
        where = "answers" if odd[0] in ids else "questions"
        raise ValueError(f"id {odd[0]!r} is missing from the {where}; both need the same ids, failed ones included")
    done = [
        (question, _concluded(answer), without_reasoning(answer.text))
        for question in questions
        if (answer := answers[question.id]).text is not None
    ]
    cut = sum(answer.finish_reason == "length" for _, answer, _ in done)
    return done, dict(zip(COUNTS, (len(questions), len(questions) - len(done), cut), strict=True))


def _concluded(answer: Answer) -> Answer:
    """With what the judge said behind its reasoning."""
    return answer if answer.judgement is None else replace(answer, judgement=without_reasoning(answer.judgement))


def judgement_of(question: Question, answer: Answer) -> str:
    """
    Raises:
        ValueError: nobody has judged the answer.
    """
    if answer.judgement is None:
        raise ValueError(f"id {question.id!r} has no judgement; have a judge say something of every answer first")
    return answer.judgement
