"""Runs of a recipe, one per seed, and variants of them: what two runs would make alike is made once."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.base.model_names import digest
from training.evidence import share
from training.evidence.kept import Row

RUNS = Path("runs")
#: ``evaluate.seed`` of the validation scenes; 900001 is that of the held-out ones.
VALIDATION = 910_001


@dataclass(frozen=True)
class Variant:
    """A recipe with ``overrides`` as on the command line (``train.objective=dpo``); without ``name``, as it is.

    ``recipe`` is another one than that of the experiment. With ``after``, the model that this variant has trained is
    the one that answers and is trained.
    """

    name: str
    label: str
    overrides: tuple[str, ...] = ()
    recipe: str = ""
    after: Variant | None = None


def row(recipe: str, variant: Variant) -> Row:
    """What a variant of ``recipe`` is, but for its seed.

    Raises:
        PipelineError: the recipe is wrong.
    """
    return Row(variant.label, tuple(_words(recipe, variant)), digest(json.dumps(_set(recipe, variant), sort_keys=True)))


def _words(recipe: str, variant: Variant) -> list[str]:
    """As on the command line, the runs before it first."""
    before = [] if variant.after is None else [*_words(recipe, variant.after), "then"]
    return [*before, variant.recipe or recipe, *variant.overrides]


def _set(recipe: str, variant: Variant) -> list[dict[str, Any]]:
    """All that the recipe's file and the overrides set, the runs before it first. What they leave out is not there: an
    option that is new with its default changes nothing."""
    before = [] if variant.after is None else _set(recipe, variant.after)
    loaded = share.plan(variant.recipe or recipe, variant.overrides).recipe
    return [*before, loaded.model_dump(mode="json", exclude_unset=True, exclude={"name", "seed"})]


def on_validation_scenes(variant: Variant) -> Variant:
    """The same training, measured on the scenes that settings are chosen by, which no table is of."""
    name = f"{variant.name}-validation" if variant.name else "validation"
    return replace(variant, name=name, overrides=(*variant.overrides, f"evaluate.seed={VALIDATION}"))


def run(recipe: str, seed: int, variant: Variant) -> Path:
    """Run (or finish, or just find) a variant of ``recipe`` with ``seed``; its run directory.

    A run that is not there yet begins with all that other runs of the seed have made in the way it would.

    Raises:
        SystemExit: the run failed; its own message has been printed.
        PipelineError: the recipe is wrong.
    """
    start = () if variant.after is None else (f"sample.model=./{run(recipe, seed, variant.after)}/train/model",)
    recipe = variant.recipe or recipe
    target = folder(recipe, seed, variant.name)
    words = (f"name={target.name}", f"seed={seed}", *variant.overrides, *start)
    if not target.exists():
        partial = target.with_name(target.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        if share.adopt(share.plan(recipe, words), partial, _others(recipe, seed)):
            partial.rename(target)
    command = [sys.executable, "-m", "pipeline.run", recipe, *words]
    if code := subprocess.run(command, stdout=sys.stderr).returncode:
        raise SystemExit(code)
    return target


def folder(recipe: str, seed: int, variant: str = "") -> Path:
    """Where a run lies.

    >>> str(folder("mdpo", 1)), str(folder("mdpo", 1, "dpo"))
    ('runs/mdpo-seed-1', 'runs/mdpo-seed-1-dpo')
    """
    return RUNS / (f"{Path(recipe).stem}-seed-{seed}" + (f"-{variant}" if variant else ""))


def _others(recipe: str, seed: int) -> list[Path]:
    """Finished or not: runs with this seed, those of the same recipe first."""
    name = folder(recipe, seed).name
    paths = (path for path in sorted(RUNS.glob(f"*-seed-{seed}*")) if path.suffix != ".partial")
    same = (path for path in paths if path.name.partition("-seed-")[2].partition("-")[0] == str(seed))
    return sorted(same, key=lambda path: (path.name != name, not path.name.startswith(name), path.name))


def summary(run: Path) -> dict[str, Any]:
    """The run's ``summary.json``."""
    content: dict[str, Any] = json.loads((run / "summary.json").read_text())
    return content


def metrics(run: Path) -> list[dict[str, float]]:
    """The lines of the training's ``metrics.jsonl``."""
    lines = (run / "train" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]
