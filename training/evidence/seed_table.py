"""Values of runs over seeds, and the Markdown table that shows them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence

from training.evidence.metric_columns import Numbers

BEFORE = "before"
#: Row -> column -> one value a seed; a column that was not measured for every seed is left out.
Values = Mapping[str, Mapping[str, Sequence[float]]]


def values(rows: Mapping[str, Sequence[Numbers]], base: str | None) -> Values:
    """``rows`` holds for each label one run a seed. Above them stands the base model, as the runs of the row ``base``
    tell it; None: no row began with it, and it is left out."""
    cells = {} if base is None else {BEFORE: _complete([run.before for run in rows[base]])}
    return cells | {label: _complete([run.after for run in runs]) for label, runs in rows.items()}


def markdown(rows: Values, titles: Sequence[str]) -> str:
    """One row a label, mean ± standard deviation over seeds; a dash where a thing was not measured.

    >>> print(markdown({"DPO": {"Cover": [0.25, 0.75]}}, ["Cover", "length"]))
    | | Cover | length |
    |---|---|---|
    | DPO | 0.500 ± 0.354 | - |
    """
    lines = ["| | " + " | ".join(titles) + " |", "|---" * (len(titles) + 1) + "|"]
    for label, cells in rows.items():
        shown = (spread(cells[title]) if title in cells else "-" for title in titles)
        lines.append(f"| {label} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation, which a single value has none of.

    >>> spread([0.25, 0.75]), spread([0.25])
    ('0.500 ± 0.354', '0.250')
    """
    return f"{statistics.fmean(values):.3f}" + (f" ± {deviation(values):.3f}" if len(values) > 1 else "")


def deviation(values: Sequence[float]) -> float:
    """Of a sample; 0, an error bar of no length, for a single value."""
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _complete(runs: Sequence[Mapping[str, float | None]]) -> dict[str, list[float]]:
    measured = {title: [value for run in runs if (value := run.get(title)) is not None] for title in runs[0]}
    return {title: of for title, of in measured.items() if of and len(of) == len(runs)}
