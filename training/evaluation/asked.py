"""A prompt of an evaluation with its truth, and what a model and a judge said to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Asked:
    """``id`` is unique in its suite. ``image`` is the picture's file name; answers about one picture are not
    independent, so it is the unit that intervals are drawn over. ``truth`` holds plain JSON, as its suite wants it."""

    id: str
    image: str
    prompt: str
    truth: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Answered:
    """``text`` is None where no answer could be had. ``judgement`` is what a judge said of it, word for word."""

    text: str | None
    judgement: str | None = None
    finish_reason: str | None = None


def pairs(
    asked: Sequence[Asked], answers: Mapping[str, Answered]
) -> tuple[list[tuple[Asked, Answered, str]], dict[str, int]]:
    """(question, answer, its text) of every answer there is, and the counts ``asked``, ``failed`` and ``truncated``.

    Raises:
        ValueError: an id is asked twice, or an answer is missing or was never asked for.
    """
    ids = [one.id for one in asked]
    if len(set(ids)) < len(ids):
        twice = next(id for id in ids if ids.count(id) > 1)
        raise ValueError(f"id {twice!r} is asked twice; give every question an id of its own")
    odd = sorted(set(ids) ^ answers.keys())
    if odd:
        where = "answers" if odd[0] in set(ids) else "questions"
        raise ValueError(f"id {odd[0]!r} is missing from the {where}; both need the same ids, failed ones included")
    done = list(_done(asked, answers))
    cut = sum(answered.finish_reason == "length" for _, answered, _ in done)
    return done, {"asked": len(asked), "failed": len(asked) - len(done), "truncated": cut}


def _done(asked: Sequence[Asked], answers: Mapping[str, Answered]) -> Iterator[tuple[Asked, Answered, str]]:
    for one in asked:
        answered = answers[one.id]
        if answered.text is not None:
            yield one, answered, answered.text
