"""What a run directory shows: what became of every prompt, how the scores are spread, which texts were paired.

``pipeline.publishing.collect`` tallies it; the data card and the report are views of it. Imports no torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from pipeline.base import files
from pipeline.blindness.measure_blindness import Blindness
from pipeline.publishing.outcomes import UNFINISHED
from pipeline.publishing.style import Style
from pipeline.publishing.value_counts import Tally
from pipeline.rewriting.checked import Rates
from pipeline.running.joined import Example
from pipeline.running.store import Record, Run

#: Every step that may leave a record, in the order in which they run.
STEPS = (
    *("texts", "imagine", "rank", "instruct"),  # where images are made from texts
    *("prompts", "cooccurrence", "detect-asked", "detect", "questions"),  # where sampled texts are rewritten
    *("source", "sample", "score", "pair"),
    *("embed", "publish", "eval-source", "eval-before", "train", "eval-after"),
)
#: How the folders of the steps begin whose tables one step puts together: the answers of several models, the scores of
#: models and what they were asked.
PARTS = {"sample": ("sample-",), "score": ("ask-", "score-")}
#: Pairs that are kept to be shown.
EXAMPLES = 24


class Kind(NamedTuple):
    """What a text has in common with others. ``temperature`` and ``on_policy`` are None where nobody sampled it."""

    model: str
    revision: str
    origin: str
    temperature: float | None
    finish_reason: str
    on_policy: bool | None


@dataclass(slots=True)
class Spread:
    """The values of one score over all candidates and over the chosen and rejected ones. Nulls, and what is not a
    finite number, are only counted."""

    version: str
    every: Tally = field(default_factory=Tally)
    chosen: Tally = field(default_factory=Tally)
    rejected: Tally = field(default_factory=Tally)
    nulls: int = 0


@dataclass(slots=True)
class Lengths:
    """Words (what white space separates) of the chosen and the rejected text of each pair, and how many more the
    chosen one has."""

    chosen: Tally = field(default_factory=Tally)
    rejected: Tally = field(default_factory=Tally)
    difference: Tally = field(default_factory=Tally)
    longer: int = 0
    shorter: int = 0
    equal: int = 0

    def add(self, chosen: Sequence[str], rejected: Sequence[str]) -> None:
        a, b = (np.array([len(text.split()) for text in texts], np.float64) for texts in (chosen, rejected))
        self.chosen.add(a)
        self.rejected.add(b)
        self.difference.add(a - b)
        self.longer += int((a > b).sum())
        self.shorter += int((a < b).sum())
        self.equal += int((a == b).sum())


@dataclass(frozen=True, slots=True)
class Findings:
    """``without_image`` counts the prompts of text only, but for failed ones.

    ``outcomes`` holds exactly one entry per prompt: ``"paired"``, a drop reason, a failure, or ``"not finished"``.

    ``failures`` is keyed by (stage, error type) and holds (count, one message). ``texts`` counts candidates, ``paired``
    the (chosen, rejected) texts of pairs. ``seeds`` is the number of different ones, an estimate without
    ``seeds_exact``. ``dropped`` counts the reasons for which the source left rows out, ``gates`` the candidates that
    each gate stopped, ``unbalanced`` the pairs that were left out to balance lengths, ``curated`` those that a person
    marked, by the mark. ``examples`` are ``EXAMPLES``
    pairs, those of open prompts before questions. ``style`` is what publishing measured of these very tables, by kind
    of prompt (``pipeline.publishing.style_gate``), ``logp_gaps`` how much likelier per token the chosen text of each
    pair is. ``blindness`` is how well the published pairs are told without their images, None if nobody has looked.
    ``detector`` says how right a model was that looked for what is wrong in texts, where exact facts can tell.
    """

    prompts: int
    without_image: int
    candidates: int
    pairs: int
    outcomes: Counter[str]
    failures: Mapping[tuple[str, str], tuple[int, str]]
    texts: Counter[Kind]
    paired: Counter[tuple[Kind, Kind]]
    seeds: int
    seeds_exact: bool
    policies: Counter[str]
    sources: Counter[str]
    dropped: Counter[str]
    gates: Counter[str]
    unbalanced: int
    scores: Mapping[str, Spread]
    lengths: Lengths
    examples: Sequence[Example]
    curated: Counter[str]
    style: Mapping[str, Style]
    blindness: Blindness | None
    logp_gaps: Mapping[str, Tally]
    detector: Rates | None

    @property
    def models(self) -> Counter[tuple[str, str]]:
        """Candidates by model and revision."""
        return self._by("model", "revision")

    @property
    def finish_reasons(self) -> Counter[str]:
        return self._by("finish_reason")

    @property
    def origins(self) -> Counter[str]:
        return self._by("origin")

    @property
    def completion(self) -> float:
        """Share of prompts whose outcome is known."""
        return 1 - self.outcomes[UNFINISHED] / self.prompts if self.prompts else 0.0

    @property
    def longer_wins(self) -> float | None:
        """Of the pairs whose two texts differ in words, the share in which the chosen one is longer."""
        unequal = self.lengths.longer + self.lengths.shorter
        return self.lengths.longer / unequal if unequal else None

    @property
    def longer_by(self) -> float | None:
        """How many words more the chosen text has, in the mean over all pairs."""
        return self.lengths.difference.mean if len(self.lengths.difference) else None

    def some(self, number: int) -> list[Example]:
        """So many of the examples; two thirds of them answer open prompts, if there are that many."""
        open_prompts, questions = (
            [example for example in self.examples if example.is_question is kind] for kind in (False, True)
        )
        taken = open_prompts[: max(number - len(questions), -(-number * 2 // 3))]
        return taken + questions[: number - len(taken)]

    def _by(self, *names: str) -> Counter[Any]:
        counts: Counter[Any] = Counter()
        for kind, number in self.texts.items():
            values = tuple(getattr(kind, name) for name in names)
            counts[values if len(names) > 1 else values[0]] += number
        return counts


def steps(run: Run) -> dict[str, Record]:
    """The record of each step that started, in the order in which they run; the parts of a step before it."""
    folders = sorted(files.names(run.path))
    order = [
        name
        for step in STEPS
        for name in (
            *(folder for prefix in PARTS.get(step, ()) for folder in folders if folder.startswith(prefix)),
            step,
        )
    ]
    records = {step: run.record(step) for step in order}
    return {step: record for step, record in records.items() if record is not None}


def makes_data(step: str) -> bool:
    """Whether the published pairs come from this step; those after it only use them.

    >>> makes_data("score-clip"), makes_data("eval-before")
    (True, False)
    """
    return step in STEPS[: STEPS.index("publish")] or step.startswith(tuple(p for of in PARTS.values() for p in of))
