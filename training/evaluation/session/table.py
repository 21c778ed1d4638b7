"""Results as Markdown: one model with its intervals, or two with their differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from training.evaluation import pope

#: What a table and a plot show of each suite, if it is there; ``results.json`` has everything.
HEADLINE: Mapping[str, Sequence[str]] = {
    "pope": ("accuracy", "precision", "recall", "f1", "yes_ratio", *(f"{split}_f1" for split in pope.SPLITS),
             "unparseable_rate"),
    "chair": ("chair_s", "chair_i", "recall", "mean_length"),
    "amber_generative": ("chair", "cover", "hal", "cog"),
    "amber_discriminative": ("accuracy", "precision", "recall", "f1", "existence_f1", "attribute_f1", "relation_f1",
                             "unparseable_rate"),
    "amber": ("amber_score",),
    "shr": ("shr", "shr_words", "sentences", "words", "distinct_1", "distinct_2"),
    "object_halbench": ("response", "mention", "chair_s", "recall", "mean_length"),
    "mmhal": ("score", "hallucination_rate", "informativeness", "unparseable_rate"),
}  # fmt: skip
#: Metrics that are no share of anything.
UNITS = {"mean_length": "words", "words": "per description", "sentences": "per description", "score": "0 to 6"}


def results(found: Mapping[str, Any]) -> str:
    """The table of ``results.json``, and below it what was left out of it."""
    lines = ["| suite | metric | value | 95 % interval |", "|---|---|---|---|"]
    for suite, of in found["suites"].items():
        for name in headline(suite, of["metrics"]):
            one = of["metrics"][name]
            lines.append(f"| {suite} | {_named(name)} | {_number(one['value'])} | {_interval(one['interval'])} |")
    lines += ["", f"Model: {found['model']}. Intervals: bootstrap over images.", ""]
    for suite, of in found["suites"].items():
        counts = ", ".join(f"{count} {name}" for name, count in of["counts"].items())
        lines.append(f"- {suite}: {of['images']} images; {counts}")
    return "\n".join(lines)


def comparison(found: Mapping[str, Any]) -> str:
    """The table of what ``training.evaluation.session.versus`` found."""
    lines = ["| suite | metric | A | B | B - A | 95 % interval | p |", "|---|---|---|---|---|---|---|"]
    for suite, of in found["suites"].items():
        for name in headline(suite, of):
            one = of[name]
            cells = [_named(name), _number(one["a"]), _number(one["b"]), _number(one["difference"], sign=True)]
            cells += [_interval(one["interval"], sign=True), _p(one["p_value"])]
            lines.append(f"| {suite} | {' | '.join(cells)} |")
    lines += ["", f"- A: {found['a']}", f"- B: {found['b']}"]
    if found["not_compared"]:
        lines.append(f"- not compared: {', '.join(found['not_compared'])} (only one of the two has it)")
    lines += ["", "Paired by image: bootstrap interval, permutation test. P-values are not corrected for their number."]
    return "\n".join(lines)


def headline(suite: str, metrics: Mapping[str, Any]) -> list[str]:
    """The metrics to show, in order."""
    return [name for name in HEADLINE[suite] if name in metrics]


def _named(name: str) -> str:
    return f"{name} ({UNITS[name]})" if name in UNITS else name


def _number(value: float | None, sign: bool = False) -> str:
    """
    >>> _number(0.5), _number(0.5, sign=True), _number(None)
    ('0.500', '+0.500', '-')
    """
    return "-" if value is None else f"{value:{'+' if sign else ''}.3f}"


def _interval(interval: Sequence[float] | None, sign: bool = False) -> str:
    return "-" if interval is None else " to ".join(_number(end, sign) for end in interval)


def _p(value: float | None) -> str:
    """
    >>> _p(0.00005), _p(0.2), _p(None)
    ('< 0.001', '0.200', '-')
    """
    return "-" if value is None else "< 0.001" if value < 0.001 else f"{value:.3f}"
