"""Before and after: a recipe's evaluation over seeds, as a Markdown table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from training.evidence.seed_table import Values, spread

METRICS = (
    *("chair_s", "chair_i", "cover", "mean_length", "shr"),
    *("pope_random_accuracy", "pope_popular_accuracy", "pope_adversarial_accuracy", "pope_f1", "pope_yes_ratio"),
)
SIDES = ("before", "after")
FAITHFUL = "faithful_images"


def values(summaries: Sequence[Mapping[str, Any]]) -> Values:
    """Side -> metric -> one value a seed; a metric that not every run has is left out.

    Where images were made from text, ``faithful_images`` is the share that shows what its text says, before ranking
    and after.
    """
    runs = [_sides(summary) for summary in summaries]
    sides = [run[side] for run in runs for side in SIDES]
    metrics = [name for name in (*METRICS, FAITHFUL) if all(side.get(name) is not None for side in sides)]
    return {side: {name: [run[side][name] for run in runs] for name in metrics} for side in SIDES}


def _sides(summary: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    images = summary.get("images") or {}
    return {side: {**summary["evaluation"][side], FAITHFUL: images.get(f"faithful_{side}")} for side in SIDES}


def table(summaries: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: per metric the mean and standard deviation over seeds, before and after, and the change of the mean.

    >>> row = {"evaluation": {"before": {"cover": 0.9}, "after": {"cover": 0.8}}}
    >>> print(table([row]).splitlines()[2])
    | cover | 0.900 | 0.800 | -0.100 | -11.1 % |
    """
    lines = ["| metric | before | after | change | relative |", "|---|---|---|---|---|"]
    sides = values(summaries)
    for metric, before in sides["before"].items():
        after = sides["after"][metric]
        old, new = statistics.fmean(before), statistics.fmean(after)
        relative = f"{100 * (new - old) / old:+.1f} %" if old else "-"
        lines.append(f"| {metric} | {spread(before)} | {spread(after)} | {new - old:+.3f} | {relative} |")
    return "\n".join(lines)
