"""Accuracy of every score by kind of error, and how it is printed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from reward.agreement.image_control import SWAPPED
from reward.agreement.statistics import Agreement, agreement, outcome
from reward.agreement.truth import LABEL, Preference, Prompt

#: Where less is better.
LOWER = frozenset({"objects.hallucinated", "objects.chair_i", "objects.repeated", "facts.wrong"})
#: Counts that say nothing about worth.
NO_WORTH = frozenset(
    {"objects.mentions", "objects.unmatched", "facts.unclear", "claims.count", "correctness.unparseable", "clip.cut"}
)
#: What accuracy is, below a table of it.
_READ = (
    "accuracy: share of the pairs in which the better text has the better score; higher is better, 0.5 is chance. "
    "image swapped: the same with another prompt's image; near 0.5 if the scorer looks."
)
#: What exact facts are read from; its agreement with them is 1.
_FACTS = ("objects.", "facts.", "correctness")


@dataclass(frozen=True)
class Line:
    """``swapped`` is the same with another prompt's image; None where it was not asked for."""

    score: str
    kind: str
    own: Agreement
    swapped: Agreement | None

    @property
    def better(self) -> str:
        """Which values of the score are the better ones: ``lower`` or ``higher``."""
        return "lower" if self.score in LOWER else "higher"


def lines(prompts: Sequence[Prompt], compared: Sequence[Sequence[Preference]], samples: int = 1000) -> list[Line]:
    """One line for each score and kind of error, and one for all kinds."""
    labelled = any(prompt.label is not None for prompt in prompts)
    names = dict.fromkeys(name for prompt in prompts for name in prompt.scores)
    table = []
    for name in names:
        if name.endswith(SWAPPED) or name in NO_WORTH or (not labelled and name.startswith(_FACTS)):
            continue
        kinds = sorted({preference.kind for of_prompt in compared for preference in of_prompt})
        for kind in ["all", *kinds] if kinds != [LABEL] else ["all"]:
            accuracy = _agreement(prompts, compared, name, kind, samples)
            if accuracy is not None:
                table.append(Line(name, kind, accuracy, _agreement(prompts, compared, name + SWAPPED, kind, samples)))
    return table


def markdown(lines: Sequence[Line]) -> str:
    """A table, and how to read it; intervals are 95 % bootstrap intervals over prompts, ties count a half."""
    head = [
        "| score | better is | error | pairs | accuracy (95 %) | ties | image swapped |",
        "|---|---|---|---|---|---|---|",
    ]
    rows = [
        f"| {line.score} | {line.better} | {line.kind} | {line.own.pairs} | {_interval(line.own)} | "
        f"{line.own.ties:.3f} | {_interval(line.swapped) if line.swapped else '-'} |"
        for line in lines
    ]
    return "\n".join([*head, *rows, "", _READ]) + "\n"


def records(lines: Sequence[Line]) -> list[dict[str, Any]]:
    return [{**asdict(line), "better": line.better} for line in lines]


def _agreement(
    prompts: Sequence[Prompt], compared: Sequence[Sequence[Preference]], name: str, kind: str, samples: int
) -> Agreement | None:
    sign = -1.0 if name in LOWER else 1.0
    outcomes, places = [], []
    # By id: of a prompt with several labelled pairs each is an entry of its own.
    numbers: dict[str, int] = {}
    for prompt, of_prompt in zip(prompts, compared, strict=True):
        place = numbers.setdefault(prompt.id, len(numbers))
        values = prompt.scores.get(name)
        if values is None:
            continue
        for preference in of_prompt:
            better, worse = values[preference.better], values[preference.worse]
            # What is not known, or no number, agrees with nothing and disagrees with nothing.
            if kind not in ("all", preference.kind) or better is None or worse is None:
                continue
            if math.isfinite(better - worse):
                outcomes.append(outcome(sign * better, sign * worse))
                places.append(place)
    return agreement(outcomes, places, samples)


def _interval(result: Agreement) -> str:
    return f"{result.accuracy:.3f} ({result.low:.3f} to {result.high:.3f})"
