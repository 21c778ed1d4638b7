"""Training and evaluation as steps of a run: what they need of its recipe, and where they leave their results."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Collection, Container
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter

from pipeline.base import model_names as models
from pipeline.base.ending import run_child
from pipeline.base.errors import ConfigError, PipelineError, UserError
from pipeline.base.files import absolute, is_local, write_text
from pipeline.base.images.image_files import is_url, local
from pipeline.base.lock import InUse, locked
from pipeline.base.model_files import local_folder, require_model
from pipeline.base.sweep import sweep_output
from pipeline.publishing import publish
from pipeline.publishing.publish import FOLDER, rows
from pipeline.recipe.plan import GROUPS, Held, Outlook, Plan
from pipeline.recipe.preflight import raised
from pipeline.recipe.recipe import Recipe
from pipeline.running.resume import describe, explain
from pipeline.running.store import Record, Run, Survey, changes, make_record
from pipeline.sampling.stage import SampleStage
from pipeline.sources.config import FileSource, PluggedSource
from pipeline.sources.readers import files as sources
from training.config import TrainConfig, make_config
from training.config.evaluation import BenchmarkEvaluation, EvaluateConfig, Evaluation
from training.evaluation.in_run import BenchmarksOfRun, Side
from training.evaluation.scenes import build
from training.evaluation.summarise import summarise
from training.forward.saved_model import SavedModel

#: How changes of rows begin, of which a record knows only where they come from.
_ROWS = ("dataset: ", "eval_dataset: ", "sft.dataset: ")
_EVALUATION: TypeAdapter[EvaluateConfig | BenchmarkEvaluation] = TypeAdapter(Evaluation)


def evaluation_of(recipe: Recipe) -> Held | None:
    """The evaluation over scenes that the recipe asks for."""
    config = _asked_for(recipe)
    if not isinstance(config, EvaluateConfig):
        return None
    # How answers are read changes no answer; it would only make the prompts look stale.
    options = config.model_dump(mode="json", exclude={"parser", "max_tokens"})
    # A description of each scene, and questions of POPE's three splits, half of them to be answered with yes.
    return Held(build, options, config.max_tokens, config.scenes * (1 + 3 * 2 * config.per_image))


def benchmarks_of(plan: Plan) -> BenchmarksOfRun | None:
    """The benchmarks that the recipe asks for."""
    config = _asked_for(plan.recipe)
    return BenchmarksOfRun(plan, config) if isinstance(config, BenchmarkEvaluation) else None


def _asked_for(recipe: Recipe) -> EvaluateConfig | BenchmarkEvaluation | None:
    return None if recipe.evaluate is None else _EVALUATION.validate_python(recipe.evaluate)


def check(plan: Plan) -> None:
    """What cannot be trained must show now, not after hours of sampling.

    Raises:
        ConfigError: ``train`` does not go with the rest of the recipe, or the run lies where no trainer can write.
    """
    if plan.recipe.train is None:
        return
    run = Run(plan.recipe.run_dir)
    if not is_local(run.path):
        raise ConfigError(
            f"output_dir={plan.recipe.output_dir} is remote; training needs a local folder",
            "set train=null here, and give the dataset to python -m training.run where the GPUs are",
        )
    make_config(train_config(plan, run))


def problems(plan: Plan, benchmarks: BenchmarksOfRun | None, wanted: Collection[str], servers: bool) -> list[UserError]:
    """What keeps training and evaluation from running, if they are among ``wanted``: all of it, before anything runs.
    ``servers``: those that are asked must answer, too."""
    run = Run(plan.recipe.run_dir)
    wrong = raised([partial(check, plan)])
    if not wrong and plan.recipe.train is not None and "train" in wanted:
        options = plan.recipe.train
        extra = [options.get("eval_dataset"), (options.get("sft") or {}).get("dataset")]
        wrong += raised([partial(_require_base, plan, run), *(partial(_require_rows, path) for path in extra if path)])
        if (saved := saved_model(plan, run)) is not None:
            wrong += [
                ConfigError(f"train.{problem}") for problem in saved.problems(make_config(train_config(plan, run)))
            ]
    if benchmarks is not None and "evaluate" in wanted:
        wrong += benchmarks.problems(run, servers)
    return wrong


def saved_model(plan: Plan, run: Run) -> SavedModel | None:
    """The files of the model that is to be trained, where they are on this machine."""
    config = train_config(plan, run)
    folder = local_folder(config["model"], config.get("model_revision"))
    return SavedModel(folder) if folder is not None else None


def notes(plan: Plan, run: Run, wanted: Container[str]) -> list[str]:
    """What of the options of training counts otherwise than it was written."""
    if plan.recipe.train is None or "train" not in wanted or (saved := saved_model(plan, run)) is None:
        return []
    return [f"train.{note}" for note in saved.notes(make_config(train_config(plan, run)))]


def _require_base(plan: Plan, run: Run) -> None:
    if publish.current(run) is None or trained_model(plan, run) is None:
        options = {"model": plan.base().model, **(plan.recipe.train or {})}
        require_model(options["model"], options.get("model_revision"), images=True)


def _require_rows(dataset: Any) -> None:
    path = str(dataset)
    if models.looks_local(path) and not is_url(path) and not os.path.exists(os.path.expanduser(path)):
        raise ConfigError(f"train: there is no dataset {path}", "check the path")


def outlook(
    plan: Plan, run: Run, benchmarks: BenchmarksOfRun | None, stale: bool, wanted: Container[str] = GROUPS
) -> list[Outlook]:
    """What would become of training and evaluation, as far as they are ``wanted``. ``stale``: stages before them run
    again."""
    trains = plan.recipe.train is not None
    untrained = _untrained(plan, run, stale) if trains else []
    trained = run.folder("train") / "model" if trains and not untrained else None
    outlooks = [Outlook("train", 1, int(not untrained), tuple(untrained))] if trains and "train" in wanted else []
    # Without a training in this session, what an earlier one has trained is measured, or nothing.
    trained_then = trained is not None or "train" in wanted
    if plan.held is not None and trains and trained_then and "evaluate" in wanted:
        outlooks.append(_answering(plan, run, trained))
    if benchmarks is not None and "evaluate" in wanted:
        sides: tuple[Side, ...] = ("before", "after") if trains and trained_then else ("before",)
        outlooks += [_measuring(benchmarks, run, side, trained) for side in sides]
    return outlooks


def _answering(plan: Plan, run: Run, trained: Path | None) -> Outlook:
    if trained is not None:
        why = explain(run, plan.answers("eval-after", trained), Survey(run))
    else:
        why = ["never ran" if run.record("eval-after") is None else "the model is trained again"]
    shards = len(run.shards("eval-source"))
    return Outlook("eval-after", shards or None, 0 if why else shards, tuple(why))


def _measuring(benchmarks: BenchmarksOfRun, run: Run, side: Side, trained: Path | None) -> Outlook:
    """Counts suites where others count shards."""
    if side == "after" and trained is None:
        lost = dict.fromkeys((suite.name for suite in benchmarks.suites), "the model is trained first")
    else:
        lost = benchmarks.unmeasured(run, side, trained if side == "after" else None)
    total = len(benchmarks.suites)
    return Outlook(f"evaluate {side}", total, total - len(lost), tuple(f"{name}: {why}" for name, why in lost.items()))


def _untrained(plan: Plan, run: Run, stale: bool) -> list[str]:
    """Why the model would be trained; nothing if it has been."""
    old = _without_neutral(run.record("train"))
    if old is None:
        return ["never ran"]
    if stale or publish.current(run) is None:
        return ["stages before it run again"]
    differences = changes(old, _record(plan, run, train_config(plan, run)))
    return differences or ([] if old.finished else ["unfinished: it goes on from its last checkpoint"])


def train(plan: Plan, run: Run, dataset: Path, resume: str) -> Path:
    """Train in a process of its own, which must not inherit the memory and threads of this one; returns the model.

    Raises:
        PipelineError: training failed, or ``resume`` is "always" and its options have changed.
    """
    config = train_config(plan, run)
    new, old = _record(plan, run, config), _without_neutral(run.record("train"))
    folder, model = run.folder("train"), run.folder("train") / "model"
    differences = changes(old, new) if old is not None else []
    # Rows that were published again, or lie in another revision of the hub's, may be the same to a trainer, which
    # compares what it reads of them (resume.settle).
    if all(line.startswith(_ROWS) for line in differences) and resume != "never":
        old = old and replace(old, finished=old.finished and not differences)
    else:
        if resume == "always":
            raise PipelineError(f"training was done with other options: {'; '.join(differences)}", "restore them")
        with locked(folder, "python -m pipeline.run"):  # nobody may be training there
            run.clear("train")
        old = None
    if old is not None and old.finished and (model / "config.json").is_file():
        return model
    published = publish.current(run)
    record = replace(new, seconds=old.seconds if old else 0.0, rows=published.rows if published else 0)
    run.save(record)
    # What the record does not know, such as images that were replaced, the training itself sees.
    write_text(folder / "config.yaml", yaml.safe_dump({"resume": resume, **config}, sort_keys=False))
    started = time.monotonic()
    command = [sys.executable, "-m", "training.run", str(folder / "config.yaml")]
    code = run_child(command)
    record = replace(record, seconds=record.seconds + time.monotonic() - started, finished=code == 0)
    run.save(record)
    if code:
        raise PipelineError(
            f"training stopped with status {code}", "its own message stands above; the same command continues it"
        )
    return model


def sweep_training(folder: Path) -> None:
    """Remove what a killed training has left: of one that is found finished, the trainer does not come by again. One
    that is running holds its folder."""
    if is_local(folder) and folder.is_dir():
        with contextlib.suppress(InUse), locked(folder, "python -m pipeline.run"):
            sweep_output(folder)


def trained_model(plan: Plan, run: Run) -> Path | None:
    """The folder of the model that this run has trained as the recipe says, if it has."""
    record = _without_neutral(run.record("train"))
    if plan.recipe.train is None or record is None or not record.finished or publish.current(run) is None:
        return None
    same = record.own == _record(plan, run, train_config(plan, run)).own
    return run.folder("train") / "model" if same else None


def evaluate(plan: Plan, run: Run, trained: Path | None) -> dict[str, Any]:
    """``before`` and ``after`` (of the model ``trained``), as far as they have been answered: metric -> value."""
    if plan.held is None or not run.shards("eval-source"):
        return {}
    from pipeline.scenes.scene_words import scenes
    from pipeline.scenes.vocabulary import VOCABULARY

    parser = EvaluateConfig.model_validate(plan.recipe.evaluate).parser
    prompts = run.table("eval-source")
    stages = {"before": plan.answers("eval-before")}
    if trained is not None:
        stages["after"] = plan.answers("eval-after", trained)
    finished = {name: stage.name for name, stage in stages.items() if _answered(run, stage)}
    reading = (VOCABULARY, parser, scenes())
    return {name: summarise(prompts, run.table(stage), *reading) for name, stage in finished.items()}


def _answered(run: Run, stage: SampleStage) -> bool:
    """Whether the answers are all there, and of the model that they should be of."""
    record = run.record(stage.name)
    return record is not None and record.finished and record.own == describe(run, stage, Survey(run)).own


def train_config(plan: Plan, run: Run) -> dict[str, Any]:
    """The configuration of the training on what a run has published."""
    options = {"model": plan.base().model, "seed": plan.recipe.seed, **(plan.recipe.train or {})}
    if options.get("dtype", "auto") == "auto":  # it does not look at the GPUs again, which may be others by then
        options["dtype"] = "float32" if plan.recipe.dtype == "auto" else plan.recipe.dtype
    return {
        # Published rows name files below the source's root, which the source has looked at.
        **({"allowed_roots": roots} if (roots := _roots(plan.recipe, publish.current(run))) else {}),
        **options,
        "model": models.resolve(options["model"]),
        "dataset": absolute(run.path / FOLDER),
        "output_dir": absolute(run.path / "train"),
    }


def _without_neutral(record: Record | None) -> Record | None:
    """An earlier run's record without the options that are known by now to change nothing."""
    if record is None:
        return None
    neutral = TrainConfig.neutral()
    return replace(record, options={key: value for key, value in record.options.items() if key not in neutral})


def _roots(recipe: Recipe, published: Record | None) -> list[str]:
    """Where the images lie that published rows name by their paths."""
    source = recipe.source
    images = recipe.publish.images if published is None else published.options.get("images", "reference")
    if images == "embed" or not isinstance(source, FileSource | PluggedSource):
        return []
    if isinstance(source, PluggedSource) or source.root is not None:
        return [_place(source.root or ".")]
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
    published = publish.current(run)
    if published is None:
        raise PipelineError(f"{run.path} has no published dataset", "add publish to --stages")
    # With these comes datasets, which --plan need not load.
    from training.formats.content import identity
    from training.formats.plugged import schema_of

    made = make_config(config)
    # As the trainer opens them, or a dataset that it can read would count by its files alone.
    content = partial(identity, allowed_roots=made.allowed_roots, allow_http=made.allow_http)
    options, old = made.result_options(), run.record("train")
    was = old.options if old is not None else {}
    if "eval_dataset" in options and made.eval_dataset is not None:
        kind, root = schema_of(made), made.image_root
        held_out = content(made.eval_dataset, kind, made.eval_split, root)
        options["eval_dataset"] = _revised(held_out, was.get("eval_dataset"))
    if made.sft is not None:
        options["sft"] |= {"dataset": _revised(content(made.sft.dataset, rejected=False), was.get("sft.dataset"))}
    options |= {"model": models.identity(config["model"]), "dataset": rows(published)}
    return make_record("train", 2, options, {})


def _revised(now: str, was: Any) -> str:
    """An identity of rows. A name on the hub whose revision cannot be told now, as without a network, has its last one.

    >>> _revised("owner/name", "owner/name@5a1b2c3"), _revised("owner/name@d4e5f6a", "owner/name@5a1b2c3")
    ('owner/name@5a1b2c3', 'owner/name@d4e5f6a')
    """
    return was if isinstance(was, str) and was.startswith(f"{now}@") else now
