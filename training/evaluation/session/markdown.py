"""Results as Markdown: one model with its intervals, or two with their differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from training.evaluation import benchmarks


def results(content: Mapping[str, Any]) -> str:
    """The table of ``results.json``, and below it what was left out of it."""
    lines = ["| suite | metric | value | 95 % interval |", "|---|---|---|---|"]
    for suite, of in content["suites"].items():
        for name in headline(suite, of["metrics"]):
            metric = of["metrics"][name]
            lines.append(
                f"| {suite} | {_label(suite, name)} | {_number(metric['value'])} | {_interval(metric['interval'])} |"
            )
    lines += ["", f"Model: {content['model']}. Intervals: bootstrap over images.", ""]
    for suite, of in content["suites"].items():
        counts = ", ".join(f"{count} {name}" for name, count in of["counts"].items())
        lines.append(f"- {suite}: {of['images']} images; {counts}")
    return "\n".join(lines)


def comparison(content: Mapping[str, Any]) -> str:
    """The table of what ``training.evaluation.session.versus`` found."""
    lines = ["| suite | metric | A | B | B - A | 95 % interval | p |", "|---|---|---|---|---|---|---|"]
    for suite, of in content["suites"].items():
        for name in headline(suite, of):
            metric = of[name]
            cells = [
                _label(suite, name),
                _number(metric["a"]),
                _number(metric["b"]),
                _number(metric["difference"], sign=True),
            ]
            cells += [_interval(metric["interval"], sign=True), _p(metric["p_value"])]
            lines.append(f"| {suite} | {' | '.join(cells)} |")
    lines += ["", f"- A: {content['a']}", f"- B: {content['b']}"]
    if content["not_compared"]:
        lines.append(f"- not compared: {', '.join(content['not_compared'])} (only one of the two has it)")
    lines += ["", "Paired by image: bootstrap interval, permutation test. P-values are not corrected for their number."]
    return "\n".join(lines)


def headline(suite: str, metrics: Mapping[str, Any]) -> list[str]:
    """The metrics to show, in order; ``results.json`` has everything."""
    if suite in benchmarks.TOGETHER:
        shown = benchmarks.TOGETHER[suite].headline
    else:
        shown = benchmarks.find(suite).headline if suite in benchmarks.BENCHMARKS else ()
    return [name for name in shown or metrics if name in metrics]


def units(suite: str) -> Mapping[str, str]:
    """Metrics that are no share of anything."""
    return benchmarks.find(suite).units if suite in benchmarks.BENCHMARKS else {}


def title(suite: str) -> str:
    """How a suite is called in prose.

    >>> title("pope"), title("chair"), title("object_halbench"), title("colours")
    ('POPE', 'CHAIR', 'Object HalBench', 'colours')
    """
    words = suite.replace("_", " ")
    if suite not in benchmarks.BENCHMARKS:
        return words
    called = benchmarks.find(suite).title.partition(",")[0]
    return called if called.lower().startswith(words) else words.upper()


def better(suite: str, metric: str) -> Literal["lower", "higher"] | None:
    """Which way a metric gets better; None where neither is, or where nobody has said it.

    >>> better("pope", "f1"), better("pope", "yes_ratio"), better("amber", "amber_score")
    ('higher', None, 'higher')
    """
    if suite in benchmarks.TOGETHER:
        return "higher"
    if suite not in benchmarks.BENCHMARKS:
        return None
    kind = benchmarks.find(suite)
    return "lower" if metric in kind.lower else None if metric in kind.neutral else "higher"


def _label(suite: str, name: str) -> str:
    unit = units(suite).get(name)
    return name if unit is None else f"{name} ({unit})"


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
