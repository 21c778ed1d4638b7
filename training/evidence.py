"""Print a table of the evidence page: ``python -m training.evidence quickstart``.

A table is the mean over three seeds of a recipe run from images to evaluation, with the standard deviation. Every run
is a run directory like any other, so a second call reads what is finished and runs only what is missing.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

METRICS = (
    *("chair_s", "chair_i", "cover", "mean_length"),
    *("pope_random_accuracy", "pope_popular_accuracy", "pope_adversarial_accuracy", "pope_f1", "pope_yes_ratio"),
)


def run_recipe(recipe: str, seed: int, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Run (or finish, or just read) ``recipe`` with ``seed``; the content of its ``summary.json``.

    Raises:
        SystemExit: the run failed; its own message has been printed.
    """
    name = f"{Path(recipe).stem}-seed-{seed}"
    command = [sys.executable, "-m", "pipeline.run", recipe, f"name={name}", f"seed={seed}", *overrides]
    if code := subprocess.run(command, stdout=sys.stderr).returncode:
        raise SystemExit(code)
    summary: dict[str, Any] = json.loads((Path("runs") / name / "summary.json").read_text())
    return summary


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
        lines.append(f"| {metric} | {_spread(before)} | {_spread(after)} | {new - old:+.3f} | {relative} |")
    return "\n".join(lines)


def _spread(values: Sequence[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else 0.0
    return f"{statistics.fmean(values):.3f} ± {deviation:.3f}"


def main(
    recipe: Annotated[str, typer.Argument(help="A recipe with an evaluation.")] = "quickstart",
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE")] = None,
    seeds: Annotated[str, typer.Option(help="Comma-separated.")] = "0,1,2",
) -> None:
    """Run RECIPE with several seeds and print before and after as a Markdown table."""
    summaries = [run_recipe(recipe, int(seed), overrides or []) for seed in seeds.split(",")]
    pairs = ", ".join(str(summary["pairs"]) for summary in summaries)
    typer.echo(f"{table(summaries)}\n\nseeds {seeds}; pairs {pairs}")


if __name__ == "__main__":
    typer.run(main)
