"""Published benchmarks: what each asks, read from its own files, and how its answers are scored.

Every suite is two pure functions. ``questions(data, ...)`` reads the benchmark's files in the folder ``data`` and gives
``Asked``; ``score(asked, answers, ...)`` takes those and an ``Answered`` for every id and gives a ``Tally``. What
else they take is said beside each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from training.evaluation.asked import Asked
from training.evaluation.suites import amber, chair, mmhal, object_halbench, pope, shr
from training.evaluation.tally import Tally


class Suite(NamedTuple):
    """``judged``: by default, its answers need the judgement of a model (``Answered.judgement``)."""

    questions: Callable[..., list[Asked]]
    score: Callable[..., Tally]
    version: str
    judged: bool = False


SUITES: Mapping[str, Suite] = {
    "pope": Suite(pope.questions, pope.score, pope.VERSION),
    "chair": Suite(chair.questions, chair.score, chair.VERSION),
    "amber_generative": Suite(amber.describe, amber.score_descriptions, amber.VERSION),
    "amber_discriminative": Suite(amber.ask, amber.score_answers, amber.VERSION),
    "shr": Suite(shr.questions, shr.score, shr.VERSION, judged=True),
    "object_halbench": Suite(object_halbench.questions, object_halbench.score, object_halbench.VERSION, judged=True),
    "mmhal": Suite(mmhal.questions, mmhal.score, mmhal.VERSION, judged=True),
}
