"""The numbers of an experiment in a JSON file: a table is drawn from it without the runs, and the next seed is added.

    {"rows": {label: {"words": ["mdpo", "train.objective=dpo"], "seeds": {"0": {"before": {...}, "after": {...}}}}}}

``words`` are the recipe and all overrides: a row whose settings have changed since is measured anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.base.errors import InputError
from pipeline.base.files import write_text
from training.evidence.metric_columns import Numbers


def read(file: Path | None, label: str, words: Sequence[str], titles: Sequence[str]) -> dict[int, Numbers]:
    """Seed -> what the file says of a row; only what was measured with ``words`` and has all columns ``titles``.

    Raises:
        InputError: the file is no such JSON.
    """
    if file is None or not file.is_file():
        return {}
    row = _content(file).get(label) or {}
    if row.get("words") != list(words):
        return {}
    seeds = {int(seed): Numbers(**sides) for seed, sides in row["seeds"].items()}
    return {seed: kept for seed, kept in seeds.items() if set(titles) <= set(kept.after)}


def add(file: Path, label: str, words: Sequence[str], seed: int, measured: Numbers) -> None:
    """Put one run's numbers into the file. What the row has from other settings goes.

    Raises:
        InputError: the file is no such JSON.
    """
    rows = _content(file) if file.is_file() else {}
    row = rows.get(label) or {}
    seeds = row["seeds"] if row.get("words") == list(words) else {}
    seeds[str(seed)] = {"before": _rounded(measured.before), "after": _rounded(measured.after)}
    rows[label] = {"words": list(words), "seeds": dict(sorted(seeds.items(), key=lambda item: int(item[0])))}
    write_text(file, json.dumps({"rows": rows}, indent=1, ensure_ascii=False) + "\n")


def _content(file: Path) -> dict[str, Any]:
    try:
        rows: dict[str, Any] = json.loads(file.read_text())["rows"]
        return dict(rows)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{file} has no numbers of an experiment: {error!r}", "name another file with --results"
        ) from error


def _rounded(numbers: Mapping[str, float | None]) -> dict[str, float | None]:
    return {title: None if value is None else round(value, 6) for title, value in numbers.items()}
