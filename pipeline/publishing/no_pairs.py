"""Why a run has no pair at all, or few: for the error and the warning that say so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pipeline.base.errors import InputError
from pipeline.pairing.rule import is_open
from pipeline.publishing.curated import Curation
from pipeline.running.store import Run

#: Share of the texts without a value from which on a score is named.
_MOST = 0.5
#: Pairs of a prompt below which they are few.
_FEW = 0.1
_REMEDY = "give the images what that scorer needs (docs/rewards.md), or weigh a score that has values"


def no_pairs(run: Run) -> InputError:
    """The counts of the reasons; where a score that is weighed is null for most texts, its scorer and what that says of
    it."""
    reasons: Counter[str] = Counter()
    curate = Curation.of(run)
    for shard in run.shards("pair"):
        reasons.update(curate(run.read("pair", shard), run.read("sample", shard))["reason"].to_pylist())
    counts = ", ".join(f"{reason}: {count}" for reason, count in sorted(reasons.items()))
    message = f"not one of the prompts gave a pair ({counts})"
    if silent := _silent_scorers(run):
        return InputError(f"{message}; {'; '.join(silent)}", _REMEDY)
    return InputError(message, "lower pair.margin, or raise sample.n")


def few_pairs(run: Run, pairs: int) -> Iterator[str]:
    """If few prompts gave a pair, the scorers to blame: those that are weighed and have no value for most texts."""
    record = run.record("pair")
    if record is not None and pairs < _FEW * record.rows and (silent := _silent_scorers(run)):
        yield f"{pairs} pairs of {record.rows} prompts: {'; '.join(silent)} ({_REMEDY})"


def _silent_scorers(run: Run) -> list[str]:
    weighed = _weighed(run)
    nulls: Counter[str] = Counter()
    notes: dict[str, str] = {}
    texts = 0
    for shard in run.shards("score"):
        for row in run.read("score", shard).to_pylist():
            values = {score["name"]: score["values"] for score in row["scores"] or ()}
            unknown = {note["scorer"]: note["error"] for note in row.get("unknown") or ()}  # earlier tables have none
            notes = {**unknown, **notes}
            texts += max(map(len, values.values()), default=0)
            nulls.update(_nulls(values, weighed, unknown))
    return [_silent(name, nulls[name], texts, notes) for name in weighed if nulls[name] > _MOST * texts]


def _nulls(values: Mapping[str, list[float | None]], weighed: list[str], unknown: Collection[str]) -> dict[str, int]:
    """The texts of a prompt that each score keeps from being compared. One that is null for all of them does not apply,
    which is no fault as long as another one does."""
    empty = {name: sum(value is None for value in values.get(name, ())) for name in weighed}
    applies = [name for name in weighed if empty[name] < len(values.get(name, ())) or is_open(name, unknown)]
    return {name: empty[name] for name in applies or weighed}


def _weighed(run: Run) -> list[str]:
    record = run.record("pair")
    options: Mapping[str, Any] = record.options if record is not None else {}
    return [key.removeprefix("weights.") for key, weight in options.items() if key.startswith("weights.") and weight]


def _silent(name: str, nulls: int, texts: int, notes: Mapping[str, str]) -> str:
    scorer = name.split(".")[0]
    why = f" ({notes[scorer]})" if notes.get(scorer) else ""
    return f"the scorer {scorer} gave no value of {name} for {nulls} of {texts} texts{why}"
