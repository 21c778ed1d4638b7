"""What a run's ``summary.json`` says of its model before and after training, as rows to be shown."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.base.files import read_text
from pipeline.publishing.findings import Findings


@dataclass(frozen=True, slots=True)
class Metric:
    """How a metric is shown. ``better`` is None where neither more nor less is better by itself; ``unit`` is "%" for a
    share. ``tile``: it is among the few that stand at the top."""

    key: str
    label: str
    short: str
    better: Literal["lower", "higher"] | None
    unit: str = "%"
    plotted: bool = True
    tile: bool = False


METRICS = (
    Metric("chair_i", "CHAIRi: hallucinated mentions of all mentions", "CHAIRi", "lower", tile=True),
    Metric("chair_s", "CHAIRs: captions with a hallucination", "CHAIRs", "lower"),
    Metric("cover", "Cover: objects in the image that are named", "Cover", "higher"),
    Metric("shr", "SHR: sentences with something wrong", "SHR", "lower"),
    Metric("mean_length", "Words per caption", "words", None, "words", plotted=False),
    Metric("pope_random_accuracy", "POPE accuracy, random", "POPE\nrandom", "higher"),
    Metric("pope_popular_accuracy", "POPE accuracy, popular", "POPE\npopular", "higher"),
    Metric("pope_adversarial_accuracy", "POPE accuracy, adversarial", "POPE\nadversarial", "higher", tile=True),
    Metric("pope_f1", "POPE F1, mean of the three splits", "POPE F1", "higher", plotted=False),
    Metric("pope_yes_ratio", "POPE answers that say yes (half should)", "says yes", None),
)
_COUNTS = ("captions", "pope_questions", "images", "unparseable", "truncated", "failed")
#: A difference with this p-value or more is not called better or worse.
_CHANCE = 0.05
#: Suites whose first metric stands at the top.
_TILES = 3


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric before and after; intervals are [low, high] or None. All in the metric's own unit (shares in 0..1)."""

    metric: Metric
    before: float | None
    after: float | None
    before_ci: tuple[float, float] | None
    after_ci: tuple[float, float] | None
    p_value: float | None = None

    @property
    def delta(self) -> float | None:
        return None if self.before is None or self.after is None else self.after - self.before

    @property
    def verdict(self) -> Literal["better", "worse", "same", ""]:
        """Whether after is better; "" where the metric has no better, a value is missing, or chance explains it."""
        chance = self.p_value is not None and self.p_value >= _CHANCE
        if self.delta is None or self.metric.better is None or chance:
            return ""
        if self.delta == 0:
            return "same"
        return "better" if (self.delta < 0) == (self.metric.better == "lower") else "worse"

    @property
    def apart(self) -> bool:
        """The two intervals do not touch."""
        if self.before_ci is None or self.after_ci is None:
            return False
        return self.before_ci[1] < self.after_ci[0] or self.after_ci[1] < self.before_ci[0]


def comparison(evaluations: Sequence[Mapping[str, Any]]) -> list[Comparison]:
    """The metrics that the first or the last evaluation has, first against last; a lone one is "before"."""
    before, after = evaluations[0], evaluations[-1] if len(evaluations) > 1 else {}
    rows = (
        Comparison(
            metric,
            _finite(before.get(metric.key)),
            _finite(after.get(metric.key)),
            _interval(before.get(f"{metric.key}_ci")),
            _interval(after.get(f"{metric.key}_ci")),
        )
        for metric in METRICS
    )
    return [row for row in rows if row.before is not None or row.after is not None]


def headline(rows: Sequence[Comparison], findings: Findings) -> str:
    """What came out, in one or two sentences, with what was paid for it.

    >>> cover = Comparison(METRICS[2], 0.91, 0.79, None, None)
    >>> headline([Comparison(METRICS[0], 0.13, 0.054, None, None), cover], None).split(". ")[1]
    'Cover goes from 91.0 % to 79.0 %: part of the gain is saying less.'
    """
    by_key = {row.metric.key: row for row in rows if row.delta is not None}
    if any(row.p_value is not None for row in rows):
        return " ".join(map(_sentence, (row for row in by_key.values() if row.metric.tile)))
    chair, cover = by_key.get("chair_i"), by_key.get("cover")
    if chair is None or chair.delta is None:
        return (
            f"{findings.pairs:,} preference pairs from {findings.prompts:,} prompts and {findings.candidates:,} texts."
        )
    verb = "fall" if chair.delta < 0 else "rise" if chair.delta > 0 else "stay"
    sentence = f"Hallucinated mentions {verb} from {percent(chair.before)} to {percent(chair.after)}."
    if cover is not None and cover.delta is not None:
        sentence += f" Cover goes from {percent(cover.before)} to {percent(cover.after)}"
        # Where there are intervals they decide whether Cover fell at all, else two points do.
        fell = cover.apart if cover.before_ci and cover.after_ci else abs(cover.delta) > 0.02
        sentence += ": part of the gain is saying less." if fell and cover.delta < 0 and chair.delta < 0 else "."
    return sentence


@dataclass(frozen=True, slots=True)
class EvaluationRows:
    """``labels`` are the evaluations by name, the baseline first; ``counts`` what was asked and what was left out."""

    labels: tuple[str, ...] = ()
    rows: tuple[Comparison, ...] = ()
    counts: tuple[tuple[str, list[str]], ...] = ()


def evaluation_rows(run_dir: Path) -> EvaluationRows:
    summary = json_or_none(read_text(run_dir / "summary.json") or "")
    if not isinstance(summary, dict):
        return EvaluationRows()
    if summary.get("benchmarks"):
        rows = _benchmarks(summary["benchmarks"])
        both = any(row.after is not None for row in rows)
        return EvaluationRows(("before", "after") if both else ("before",), tuple(rows))
    evaluations = _evaluations(summary)
    if not evaluations:
        return EvaluationRows()
    each = list(evaluations.values())
    return EvaluationRows(tuple(evaluations), tuple(comparison(each)), tuple(_evaluation_counts(each)))


def _benchmarks(entries: Sequence[Mapping[str, Any]]) -> list[Comparison]:
    rows, suites = [], dict.fromkeys(entry["suite"] for entry in entries)
    first = {suite: next(entry["metric"] for entry in entries if entry["suite"] == suite) for suite in suites}
    tiles = [(suite, first[suite]) for suite in [*suites][:_TILES]]
    for entry in entries:
        suite, name, unit = entry["suite"], entry["metric"], entry["unit"]
        words = f"{entry['title']}: {name.replace('_', ' ')}{f' ({unit})' if unit else ''}"
        metric = Metric(
            f"{suite}.{name}", words, f"{entry['title']}\n{name}".replace("_", " "), entry["better"], unit or "%",
            plotted=not unit, tile=(suite, name) in tiles,
        )  # fmt: skip
        sides = (_finite(entry["before"]), _finite(entry["after"]))
        intervals = (_interval(entry["before_ci"]), _interval(entry["after_ci"]))
        rows.append(Comparison(metric, *sides, *intervals, _finite(entry["p_value"])))
    return rows


def _sentence(row: Comparison) -> str:
    """
    >>> _sentence(Comparison(Metric("pope.f1", "POPE: f1", "", "higher"), 0.8, 0.85, None, None, 0.0004))
    'POPE: f1 goes from 80.0 % to 85.0 % (p < 0.001).'
    """
    unit, label = row.metric.unit, row.metric.label
    sides = f"from {percent(row.before, unit)} to {percent(row.after, unit)}"
    return f"{label} goes {sides}{f' ({p_text(row.p_value)})' if row.p_value is not None else ''}."


def p_text(value: float | None) -> str:
    """
    >>> p_text(0.0123), p_text(None)
    ('p = 0.012', '')
    """
    return "" if value is None else "p < 0.001" if value < 0.001 else f"p = {value:.3f}"


def _evaluations(summary: Mapping[str, Any]) -> Mapping[str, Mapping[str, Any]]:
    """The metrics of each evaluation by its name, in the order they stand there."""
    if isinstance(summary.get("evaluation"), dict):
        summary = summary["evaluation"]
    keys = {metric.key for metric in METRICS}
    evaluations = {name: value for name, value in summary.items() if isinstance(value, dict) and keys & value.keys()}
    if not evaluations and keys & summary.keys():
        evaluations = {"model": dict(summary)}
    return evaluations


def _evaluation_counts(evaluations: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    rows = ((name.replace("_", " "), [number(each.get(name)) for each in evaluations]) for name in _COUNTS)
    return [(name, values) for name, values in rows if set(values) != {"–"}]


def _finite(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None


def _interval(value: Any) -> tuple[float, float] | None:
    ends = [_finite(end) for end in value] if isinstance(value, list | tuple) else []
    return (ends[0], ends[1]) if len(ends) == 2 and ends[0] is not None and ends[1] is not None else None


def percent(share: float | None, unit: str = "%") -> str:
    """A share as percent, or a number of words as it is."""
    if share is None:
        return "–"
    return f"{100 * share:.1f} %" if unit == "%" else f"{share:.1f}"


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:,.4g}" if isinstance(value, float) and value % 1 else f"{value:,.0f}"


def json_or_none(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:  # a line cut short by a kill
        return None
