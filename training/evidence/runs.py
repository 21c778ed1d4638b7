"""Runs of a recipe, one per seed, and variants of them that share everything up to the published dataset."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RUNS = Path("runs")

#: What belongs to a trained model; everything else is shared between variants of a run.
_OWN = ("train", "eval-after", "summary.json", "report.html")


@dataclass(frozen=True)
class Variant:
    """``overrides`` are those of the command line (``train.objective=dpo``)."""

    name: str
    label: str
    overrides: tuple[str, ...] = ()


def run_recipe(recipe: str, seed: int, overrides: Sequence[str] = (), variant: str = "") -> Path:
    """Run (or finish, or just find) ``recipe`` with ``seed``; its run directory.

    Raises:
        SystemExit: the run failed; its own message has been printed.
    """
    name = f"{Path(recipe).stem}-seed-{seed}" + (f"-{variant}" if variant else "")
    command = [sys.executable, "-m", "pipeline.run", recipe, f"name={name}", f"seed={seed}", *overrides]
    if code := subprocess.run(command, stdout=sys.stderr).returncode:
        raise SystemExit(code)
    return RUNS / name


def run_variant(recipe: str, seed: int, variant: Variant) -> Path:
    """Like ``run_recipe``, on the data that the run of the recipe itself has published: only training differs.

    A variant without overrides is the recipe itself.
    """
    base = run_recipe(recipe, seed)
    if not variant.overrides:
        return base
    target = RUNS / f"{base.name}-{variant.name}"
    if not target.exists():
        partial = target.with_name(target.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        # Linked, not copied: stage files are written once and never changed.
        shutil.copytree(base, partial, copy_function=os.link, ignore=_own_of(base))
        partial.rename(target)
    return run_recipe(recipe, seed, variant.overrides, variant.name)


def _own_of(base: Path) -> Callable[[str, list[str]], set[str]]:
    def own(folder: str, names: list[str]) -> set[str]:
        return set(_OWN) & set(names) if Path(folder) == base else set()

    return own


def summary(run: Path) -> dict[str, Any]:
    """The run's ``summary.json``."""
    found: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return found


def metrics(run: Path) -> list[dict[str, float]]:
    """The lines of the training's ``metrics.jsonl``."""
    lines = (run / "train" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
