"""What a scorer is that asks a model about the candidates: what is asked, and what an answer says."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from reward.scorers.protocol import Row

#: Error types of verdicts whose answer came and is of no use; all others are the engine's.
UNREADABLE = ("cut_off", "unreadable")


@dataclass(frozen=True, slots=True)
class Question:
    """What a model is asked about a row: one message of the user, with the row's images unless ``images`` is false.

    ``yes_or_no``: it is wanted as well how likely the answer's first token is yes, and no.
    """

    text: str
    max_tokens: int
    images: bool = True
    yes_or_no: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """Either ``text``, or an ``error`` of the form ``type: message``.

    ``complete`` is false for a text cut off at ``max_tokens``. ``first`` are the likeliest first tokens with their
    log-probs in nats; None where they were not wanted or are not known.
    """

    text: str | None = None
    complete: bool = True
    first: tuple[tuple[str, float], ...] | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a model said of a candidate, or of the two candidates ``candidate`` and ``other`` shown in this order.

    ``question`` is what about: a criterion, a claim. ``answer`` is the text as it came. With an ``error``
    (``type: message``) the verdict counts for nothing.
    """

    candidate: int
    question: str
    answer: str | None = None
    other: int | None = None
    p_yes: float | None = None
    error: str | None = None


class Asker(Protocol):
    """A scorer whose values come from what a model is asked, in two steps.

    ``ask`` is a generator: it yields the questions of a round, is sent their answers in the same order, and returns the
    verdicts. ``scores`` turns the verdicts of a row into one value per candidate and name; pure, so that it needs no
    model. ``counts`` adds up over rows. All names of ``scores`` are there for every row.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def ask(self, row: Row) -> Generator[list[Question], list[Answer], list[Verdict]]: ...

    def scores(self, row: Row, verdicts: Sequence[Verdict]) -> dict[str, list[float | None]]: ...

    def counts(self, verdicts: Sequence[Verdict]) -> dict[str, int]: ...


def outcomes(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """How many verdicts there are, how many the engine left ``unanswered``, and how many of its answers are unreadable.

    >>> outcomes([Verdict(0, "x", "7"), Verdict(1, "x", "?", error="unreadable: no score")])
    {'verdicts': 2, 'unanswered': 0, 'unreadable': 1}
    """
    kinds = [verdict.error and verdict.error.partition(":")[0] for verdict in verdicts]
    unreadable = sum(kind in UNREADABLE for kind in kinds)
    return {"verdicts": len(kinds), "unanswered": sum(kind is not None for kind in kinds) - unreadable} | {
        "unreadable": unreadable
    }
