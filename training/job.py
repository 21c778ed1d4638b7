"""Training and evaluation as steps of a run: what they need of its recipe, and where they leave their results."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pipeline import models
from pipeline.config import Recipe, read
from pipeline.config.source import FileSource
from pipeline.errors import ConfigError, PipelineError
from pipeline.files import absolute, is_local, write_text
from pipeline.images import local
from pipeline.plan import Held, Plan
from pipeline.sources import files as sources
from pipeline.stages.publish import FOLDER, rows
from pipeline.store import Record, Run, changes, make_record
from training.config.load import make_config
from training.errors import ConfigError as TrainConfigError
from training.evaluation.config import EvaluateConfig
from training.evaluation.prompts import build
from training.evaluation.summarise import summarise


def held(recipe: Recipe) -> Held | None:
    """The evaluation that the recipe asks for.

    Raises:
        ConfigError: ``evaluate`` is wrong.
    """
    if recipe.evaluate is None:
        return None
    config = _evaluate_config(recipe)
    # How answers are read changes no answer; it would only make the prompts look stale.
    asked = config.model_dump(mode="json", exclude={"parser", "max_tokens"})
    return Held(build, asked, config.max_tokens)


def check(plan: Plan) -> None:
    """A typo under ``train`` must show now, not after hours of sampling.

    Raises:
        ConfigError: ``train`` is wrong, or the run lies where no trainer can write.
    """
    if plan.recipe.train is None:
        return
    run = Run(plan.recipe.run_dir)
    if not is_local(run.path):
        raise ConfigError(
            f"output_dir={plan.recipe.output_dir} is remote; training needs a local folder",
            "set train=null here, and give the dataset to python -m training.run where the GPUs are",
        )
    try:
        make_config(_train_config(plan, run))
    except TrainConfigError as error:
        lines = (f"  - {line}" for line in str(error).splitlines())
        raise ConfigError("\n".join(["`train` in the recipe is wrong:", *lines])) from error


def train(plan: Plan, run: Run, dataset: Path, resume: str) -> Path:
    """Train in a process of its own, which must not inherit the memory and threads of this one; returns the model.

    Raises:
        PipelineError: training failed, or ``resume`` is "always" and its options have changed.
    """
    config = _train_config(plan, run)
    new, old = _record(plan, run, config), run.record("train")
    folder, model = run.folder("train"), run.folder("train") / "model"
    if resume == "never" or (old is not None and old.own != new.own):
        if resume == "always" and old is not None:
            raise PipelineError(f"training was done with other options: {'; '.join(changes(old, new))}", "restore them")
        run.clear("train")
        old = None
    if old is not None and old.finished and (model / "config.json").is_file():
        return model
    published = run.record("publish")
    record = replace(new, seconds=old.seconds if old else 0.0, rows=published.rows if published else 0)
    run.save(record)
    write_text(folder / "config.yaml", yaml.safe_dump(config, sort_keys=False))
    started = time.monotonic()
    command = [sys.executable, "-m", "training.run", str(folder / "config.yaml")]
    code = subprocess.run(command, check=False).returncode
    record = replace(record, seconds=record.seconds + time.monotonic() - started, finished=code == 0)
    run.save(record)
    if code:
        raise PipelineError(
            f"training stopped with status {code}", "its own message stands above; the same command continues it"
        )
    return model


def trained_model(run: Run) -> Path | None:
    """The folder of the model that this run has trained, if it has."""
    record = run.record("train")
    return run.folder("train") / "model" if record is not None and record.finished else None


def evaluate(plan: Plan, run: Run) -> dict[str, Any]:
    """``before`` and ``after``, as far as they have been answered: metric -> value."""
    if plan.held is None or not run.shards("eval-source"):
        return {}
    from pipeline.rewriting.lexicon import scenes
    from pipeline.scenes.vocabulary import VOCABULARY

    parser = _evaluate_config(plan.recipe).parser
    prompts = run.table("eval-source")
    done = {"before": "eval-before", "after": "eval-after"}
    finished = {
        name: stage for name, stage in done.items() if (record := run.record(stage)) is not None and record.finished
    }
    known = (VOCABULARY, parser, scenes())
    return {name: summarise(prompts, run.table(stage), *known) for name, stage in finished.items()}


def _evaluate_config(recipe: Recipe) -> EvaluateConfig:
    try:
        return EvaluateConfig.model_validate(recipe.evaluate)
    except ValidationError as error:
        lines = [
            f"  - evaluate.{'.'.join(map(str, e['loc']))}: {e['msg']} ({read.shown(e['input'], str(e['loc'][-1]))})"
            for e in error.errors()
        ]
        raise ConfigError("\n".join(["the recipe is wrong:", *lines])) from error


def _train_config(plan: Plan, run: Run) -> dict[str, Any]:
    own = {"model": plan.base().model, "seed": plan.recipe.seed, **(plan.recipe.train or {})}
    return {
        # Published rows name files below the source's root, which the source has looked at.
        **({"allowed_roots": roots} if (roots := _roots(plan.recipe)) else {}),
        **own,
        "model": models.resolve(own["model"]),
        "dataset": absolute(run.path / FOLDER),
        "output_dir": absolute(run.path / "train"),
    }


def _roots(recipe: Recipe) -> list[str]:
    """Where the images lie that published rows name by their paths."""
    source = recipe.source
    if recipe.publish.images == "embed" or not isinstance(source, FileSource):
        return []
    if source.root is not None:
        return [_place(source.root)]
    if source.kind == "huggingface":
        return [_place(source.path) if os.path.isdir(source.path) else f"hf://datasets/{source.path}"]
    return sorted(
        {_place(path if source.kind == "folder" else sources.folder(path)) for path in sources.expand(source.path)}
    )


def _place(path: str) -> str:
    here = local(path)
    return os.path.abspath(here) if here is not None else path


def _record(plan: Plan, run: Run, config: dict[str, Any]) -> Record:
    """What the trained model depends on: its options, the data's content and the base model's, not where they lie.

    Raises:
        PipelineError: nothing has been published yet.
    """
    published = run.record("publish")
    if published is None:
        raise PipelineError(f"{run.path} has no published dataset", "add publish to --stages")
    from training.formats.files import identity  # with it comes datasets, which --plan need not load

    options = make_config(config).result_options()
    if "eval_dataset" in options:
        options["eval_dataset"] = identity(options["eval_dataset"])
    if options["sft"] is not None:
        options["sft"] |= {"dataset": identity(options["sft"]["dataset"])}
    options |= {"model": models.identity(config["model"]), "dataset": rows(published)}
    return make_record("train", 2, options, {})
