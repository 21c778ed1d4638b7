"""Before and after: a recipe's evaluation over seeds, as a Markdown table."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

METRICS = (
    *("chair_s", "chair_i", "cover", "mean_length"),
    *("pope_random_accuracy", "pope_popular_accuracy", "pope_adversarial_accuracy", "pope_f1", "pope_yes_ratio"),
)


def table(summaries: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: per metric the mean and standard deviation over seeds, before and after, and the change of the mean.

    >>> row = {"evaluation": {"before": {"cover": 0.9}, "after": {"cover": 0.8}}}
    >>> print(table([row]).splitlines()[2])
    | cover | 0.900 ± 0.000 | 0.800 ± 0.000 | -0.100 | -11.1 % |
    """
    lines = ["| metric | before | after | change | relative |", "|---|---|---|---|---|"]
    for metric in METRICS:
        runs = [summary["evaluation"] for summary in summaries]
        if metric not in runs[0]["before"]:
            continue
        before, after = ([run[side][metric] for run in runs] for side in ("before", "after"))
        old, new = statistics.fmean(before), statistics.fmean(after)
        relative = f"{100 * (new - old) / old:+.1f} %" if old else "-"
        lines.append(f"| {metric} | {spread(before)} | {spread(after)} | {new - old:+.3f} | {relative} |")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation.

    >>> spread([0.25, 0.75])
    '0.500 ± 0.354'
    """
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.3f} ± {deviation:.3f}"
