"""The numbers of an experiment in a JSON file: a table is drawn from it without the runs, and the next seed is added.

    {"rows": {label: {"words": ["mdpo", "train.objective=dpo"], "settings": "5f2c...",
                      "seeds": {"0": {"before": {...}, "after": {...}}}}}}

``words`` are the recipe and all overrides, to be read; ``settings`` is a digest of what these set, the recipe's file
included: a row whose settings have changed since is measured anew.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.base.errors import InputError
from pipeline.base.files import write_text
from training.evidence.metric_columns import Numbers


@dataclass(frozen=True)
class Row:
    """What a row of a table is, apart from what was measured."""

    label: str
    words: tuple[str, ...]
    settings: str


def read(file: Path | None, row: Row, titles: Sequence[str]) -> dict[int, Numbers]:
    """Seed -> what the file says of a row; only what was measured with its settings and has all columns ``titles``.

    Raises:
        InputError: the file is no such JSON.
    """
    if file is None or not file.is_file():
        return {}
    found = _content(file).get(row.label) or {}
    if found.get("settings") != row.settings:
        return {}
    seeds = {int(seed): Numbers(**sides) for seed, sides in found["seeds"].items()}
    return {seed: kept for seed, kept in seeds.items() if set(titles) <= set(kept.after)}


def add(file: Path, row: Row, seed: int, measured: Numbers) -> None:
    """Put one run's numbers into the file. What the row has from other settings goes.

    Raises:
        InputError: the file is no such JSON.
    """
    rows = _content(file) if file.is_file() else {}
    found = rows.get(row.label) or {}
    seeds = found["seeds"] if found.get("settings") == row.settings else {}
    seeds[str(seed)] = {"before": _rounded(measured.before), "after": _rounded(measured.after)}
    ordered = dict(sorted(seeds.items(), key=lambda item: int(item[0])))
    rows[row.label] = {"words": list(row.words), "settings": row.settings, "seeds": ordered}
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
