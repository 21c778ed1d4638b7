"""Why a run has no pair at all, for the error that says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.base.errors import InputError
from pipeline.publishing.curated import Curation
from pipeline.running.store import Run

#: Share of the texts without a value from which on a score is named.
_MOST = 0.5


def no_pairs(run: Run) -> InputError:
    """The counts of the reasons; where a score that is weighed is null for most texts, its scorer and what that says of
    it."""
    reasons: Counter[str] = Counter()
    texts: Counter[str] = Counter()
    nulls: Counter[str] = Counter()
    notes: dict[str, str] = {}
    curate = Curation.of(run)
    for shard in run.shards("pair"):
        reasons.update(curate(run.read("pair", shard), run.read("sample", shard))["reason"].to_pylist())
        scores = run.read("score", shard)
        _count(scores, texts, nulls)
        for note in (note for row in scores["unknown"].drop_null().to_pylist() for note in row):
            notes.setdefault(note["scorer"], note["error"])
    counts = ", ".join(f"{reason}: {count}" for reason, count in sorted(reasons.items()))
    silent = [
        _silent(name, nulls[name], texts[name], notes) for name in _weighed(run) if nulls[name] > _MOST * texts[name]
    ]
    if silent:
        return InputError(
            f"not one of the prompts gave a pair ({counts}); {'; '.join(silent)}",
            "give the images what that scorer needs (docs/rewards.md), or weigh a score that has values",
        )
    return InputError(f"not one of the prompts gave a pair ({counts})", "lower pair.margin, or raise sample.n")


def _weighed(run: Run) -> list[str]:
    record = run.record("pair")
    options: Mapping[str, Any] = record.options if record is not None else {}
    return [key.removeprefix("weights.") for key, weight in options.items() if key.startswith("weights.") and weight]


def _count(scores: pa.Table, texts: Counter[str], nulls: Counter[str]) -> None:
    """Add the texts of each score, and those without a value."""
    rows = pc.list_flatten(scores["scores"])
    values = pc.struct_field(rows, "values")
    names = pc.struct_field(rows, "name").take(pc.list_parent_indices(values))
    table = pa.table({"name": names, "value": pc.list_flatten(values)}).group_by("name")
    counted = table.aggregate(
        [("value", "count", pc.CountOptions("all")), ("value", "count", pc.CountOptions("only_null"))]
    )
    for name, of_all, of_null in zip(*(column.to_pylist() for column in counted.columns), strict=True):
        texts[name] += of_all
        nulls[name] += of_null


def _silent(name: str, nulls: int, texts: int, notes: Mapping[str, str]) -> str:
    scorer = name.split(".")[0]
    why = f" ({notes[scorer]})" if notes.get(scorer) else ""
    return f"the scorer {scorer} gave no value of {name} for {nulls} of {texts} texts{why}"
