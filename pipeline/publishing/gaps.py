"""What a run's own records tell of what was not read or is not known, for the card and the report."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pipeline.running.store import Record

#: Counts of a stage that say so: of what, and in which words.
_COUNTED = {
    "unreadable": ("verdicts", "answers in which no verdict can be read"),
    "unanswered": ("verdicts", "questions that were not answered"),
    "cut": ("texts", "texts longer than CLIP's context, of which only the beginning was compared"),
    "unread": (None, "claims without a verdict, whose sentences count as neither right nor wrong"),
}


class Gap(NamedTuple):
    """``number`` out of ``of``, which is None where nothing says of how many."""

    stage: str
    what: str
    number: int
    of: int | None


def gaps(records: Iterable[Record]) -> list[Gap]:
    """
    >>> from pipeline.running.store import make_record
    >>> from dataclasses import replace
    >>> clip = replace(make_record("score-clip", 1, {}, {}), rows=5, extras={"texts": 20, "cut": 4})
    >>> [(gap.stage, gap.number, gap.of) for gap in gaps([clip])]
    [('score-clip', 4, 20)]
    """
    return [gap for record in records for gap in _of(record)]


def _of(record: Record) -> Iterator[Gap]:
    for name, (of, what) in _COUNTED.items():
        if record.extras.get(name) or (name == "cut" and name in record.extras):
            yield Gap(record.stage, what, record.extras[name], record.extras.get(of) if of else None)
    for name, number in sorted(record.extras.items()):
        scorer, _, kind = name.partition(".")
        if kind:
            yield Gap(record.stage, f"prompts of which `{scorer}` does not know a value ({kind})", number, record.rows)
