"""What a table of the evidence page shows of a run, and where it is found."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

#: ``evaluation``: before and after, from ``summary.json``; ``style``: of the pairs of descriptions, from there too;
#: ``data``: of the published dataset; ``trained``: of the last logged steps; ``conditional``, ``drift``: of
#: ``training.probing`` on held-out pairs; ``agreement``: how often labels are right.
Part = Literal["evaluation", "style", "data", "trained", "conditional", "drift", "agreement"]

#: Logged steps whose mean stands for the end of the training.
LAST_STEPS = 3


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """One finished run: ``summary.json``, the lines of ``metrics.jsonl``, ``probe.json`` where it was probed, and how
    often its labels are right (``label_accuracy.measure``) where that was asked for."""

    summary: Mapping[str, Any]
    steps: Sequence[Mapping[str, float]] = ()
    probe: Mapping[str, Any] | None = None
    labels: Mapping[str, float | None] | None = None


@dataclass(frozen=True, slots=True)
class Numbers:
    """What a table shows of one run: column -> value, of the base model and of the trained one (and its data); None
    where it was not measured."""

    before: Mapping[str, float | None]
    after: Mapping[str, float | None]


@dataclass(frozen=True, slots=True)
class Column:
    """``of_base``: what is said of a probed model holds for the base model as well."""

    title: str
    key: str
    part: Part = "evaluation"
    of_base: bool = False

    def after(self, run: FinishedRun) -> float | None:
        """The value of the trained model, or of its data; None where it was not measured."""
        match self.part:
            case "evaluation":
                return run.summary["evaluation"]["after"].get(self.key)
            case "style":
                return ((run.summary.get("style") or {}).get("descriptions") or {}).get(self.key)
            case "data":
                return _published(run.summary, self.key)
            case "agreement":
                return (run.labels or {}).get(self.key)
            case "trained":
                logged = [step[self.key] for step in run.steps if self.key in step][-LAST_STEPS:]
                return statistics.fmean(logged) if logged else None
            case _:
                return _metric(run.probe, self.part, self.key)

    def before(self, run: FinishedRun) -> float | None:
        """The value of the base model."""
        if self.part == "evaluation":
            return run.summary["evaluation"]["before"].get(self.key)
        return _metric(run.probe, "reference", self.key) if self.of_base else None


def numbers(run: FinishedRun, columns: Sequence[Column]) -> Numbers:
    """The columns' values for one run."""
    return Numbers(
        {column.title: column.before(run) for column in columns},
        {column.title: column.after(run) for column in columns},
    )


def _published(summary: Mapping[str, Any], key: str) -> float | None:
    if key == "pairs":
        return float(summary["pairs"])
    value: float | None = (summary.get(key) or {}).get("value")
    return value


def _metric(probe: Mapping[str, Any] | None, part: str, key: str) -> float | None:
    metric = ((probe or {}).get(part) or {}).get("metrics", {}).get(key) or {}
    return metric.get("value")


OBJECTS = (
    Column("CHAIRs", "chair_s"),
    Column("CHAIRi", "chair_i"),
    Column("Cover", "cover"),
    Column("length", "mean_length"),
)
POPE = (
    Column("POPE adv.", "pope_adversarial_accuracy"),
    Column("POPE F1", "pope_f1"),
    Column("yes ratio", "pope_yes_ratio"),
)
SPLITS = (
    Column("POPE random", "pope_random_accuracy"),
    Column("POPE popular", "pope_popular_accuracy"),
    Column("POPE adv.", "pope_adversarial_accuracy"),
)
#: Absent where the objective does not measure it.
TRAINED = (
    Column("chosen reward", "rewards/chosen", "trained"),
    Column("image margin", "rewards/image_margins", "trained"),
)
#: How much further apart the training has pulled chosen and rejected: little where labels contradict each other.
MARGIN = Column("margin", "rewards/margins", "trained")
PROBES = (
    Column("preferred", "accuracy_true", "conditional"),
    Column("less if swapped", "accuracy_gap_swapped", "conditional"),
    Column("less if none", "accuracy_gap_none", "conditional"),
    Column("log p gap, swapped", "chosen_gap_swapped", "conditional", of_base=True),
    Column("log p(chosen) drift", "chosen", "drift"),
)
STYLE = (
    Column("style AUC", "auc", "style"),
    Column("log p gap", "logp_gap", "style"),
    Column("length gap", "length_gap", "style"),
    Column("edit distance", "edit_distance", "style"),
)
BLINDNESS = Column("blindness", "blindness", "data")
PAIRS = Column("pairs", "pairs", "data")
ACCURACY = (
    Column("answers right", "answers", "agreement"),
    Column("pairs right", "pairs", "agreement"),
    Column("right on what is made up", "made_up", "agreement"),
)
