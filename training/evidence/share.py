"""What a run can take over from others instead of making it: whole stages with the fingerprints that it would give.

Fingerprints are the pipeline's own (``pipeline.running.resume``), so nobody has to say up to which stage two variants
are alike: a variant of the training shares the published dataset, one of the pairing everything before the pairs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path

from pipeline.publishing import publish
from pipeline.recipe.load import load_recipe
from pipeline.recipe.plan import Plan
from pipeline.running.resume import describe
from pipeline.running.store import Record, Run, Survey
from pipeline.sources.stage import ASIDE
from training import job
from training.config.recipe import WholeRecipe

#: What lies beside a published dataset and depends on it alone.
_BESIDE = (publish.FOLDER, f"{publish.FOLDER}-reference")


def plan(recipe: str, overrides: Sequence[str] = ()) -> Plan:
    """The plan of a recipe.

    Raises:
        ConfigError: it is wrong.
    """
    loaded = load_recipe(recipe, overrides, WholeRecipe)
    return Plan(loaded, job.evaluation_of(loaded))


def adopt(plan: Plan, target: Path, others: Sequence[Path]) -> list[str]:
    """Link into ``target``, a new folder, every stage that one of the runs ``others`` has finished as ``plan`` would
    make it, the published dataset if that is the same, and then the trained model if it is, too; their names.

    Linked, not copied: files of stages are written once and never changed, only replaced.
    """
    run, donors = Run(target), [Run(path) for path in others]
    linked: list[str] = []
    for stage in plan.generation():
        if not set(stage.inputs) <= set(linked):
            continue
        wanted = describe(run, stage, Survey(run))
        donor = next((candidate for candidate in donors if _same(candidate.record(stage.name), wanted)), None)
        if donor is None:
            continue
        _link(donor.folder(stage.name), run.folder(stage.name))
        if not stage.inputs and (dropped := donor.folder(ASIDE)).is_dir() and not run.folder(ASIDE).exists():
            _link(dropped, run.folder(ASIDE))
        linked.append(stage.name)
    if set(publish.TABLES) <= set(linked):
        made = publish.record(run, plan.recipe.publish)
        same = [candidate for candidate in donors if _is_published(candidate, made)]
        trained = [candidate for candidate in same if job.trained_model(plan, candidate) is not None]
        if same:
            donor = (trained or same)[0]
            for name in ("publish", *(name for name in _BESIDE if donor.folder(name).is_dir())):
                _link(donor.folder(name), run.folder(name))
            linked.append("publish")
        if trained:
            _link(trained[0].folder("train"), run.folder("train"))
            linked.append("train")
    return linked


def _same(old: Record | None, wanted: Record) -> bool:
    return old is not None and old.finished and old.fingerprint == wanted.fingerprint


def _is_published(donor: Run, wanted: Record) -> bool:
    old = publish.current(donor)
    return old is not None and old.own == wanted.own


def _link(source: Path, target: Path) -> None:
    shutil.copytree(source, target, copy_function=os.link)
