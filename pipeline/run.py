"""The command line: ``python -m pipeline.run [RECIPE|FILE] [key=value ...]``. Nobody imports this module."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pipeline.config import Recipe
    from pipeline.plan import Held, Plan
    from pipeline.store import Record, Run

# Every other import stands in the function that needs it: --help answers without Arrow, Ray or torch.
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)

#: Shown at the end, where the evaluation has them.
HEADLINE = ("chair_s", "chair_i", "cover", "mean_length", "pope_accuracy", "pope_f1", "pope_yes_ratio")


class ResumeMode(StrEnum):
    never = "never"
    if_possible = "if-possible"
    always = "always"


@app.command()
def main(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RECIPE|FILE] [KEY=VALUE]...",
            help="A built-in recipe (default: quickstart) or a YAML file, and changes such as sample.n=4.",
        ),
    ] = None,
    resume: Annotated[
        ResumeMode,
        typer.Option(help="never: start again. if-possible: keep what still holds. always: refuse changed options."),
    ] = ResumeMode.if_possible,
    explain: Annotated[
        bool, typer.Option("--explain", help="Say which stages would run, and why; run nothing.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Make a preference dataset from images and prompts, train on it, and measure what it did.

    A killed run continues where it stopped when the same command is given again. The result is in OUTPUT_DIR/NAME:
    dataset/, train/model, report.html and summary.json.
    """
    from pipeline.errors import PipelineError

    try:
        _main(list(arguments or []), resume.value, explain)
    except PipelineError as error:
        if debug:
            raise
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from error
    except KeyboardInterrupt:
        typer.echo("interrupted; the same command continues", err=True)
        raise typer.Exit(130) from None


def _main(arguments: list[str], resume: Any, explain: bool) -> None:
    from pipeline.config.load import load_recipe
    from pipeline.plan import Plan
    from pipeline.store import Run

    named = bool(arguments) and "=" not in arguments[0]
    name, overrides = (arguments[0], arguments[1:]) if named else ("quickstart", arguments)
    recipe = load_recipe(name, overrides)
    plan = Plan(recipe, _held(recipe))
    _check_training(recipe)
    run = Run(recipe.run_dir)
    if explain:
        for stage, reasons in (plan.explain(run) or {"nothing": ["every stage up to pair holds"]}).items():
            typer.echo(f"{stage}: " + "\n  ".join(reasons))
        return
    plan.preflight()
    shown = [word for word in overrides if not word.startswith("output_dir=")]
    # Goes into the card: not where files lie on this machine, or equal datasets would differ by their cards.
    command = ["python", "-m", "pipeline.run", *map(shlex.quote, [Path(name).name, *shown])]
    _run(plan, run, resume, command)


def _run(plan: Plan, run: Run, resume: Any, command: list[str]) -> None:
    from pipeline.executor import Executor
    from pipeline.plan import generate, run_stage
    from pipeline.store import write_text

    recipe = plan.recipe
    # Interrupted here, an old summary would describe data that no longer exists.
    (run.path / "summary.json").unlink(missing_ok=True)
    with Executor(run, recipe.max_failure_rate, recipe.shard_retries) as executor:
        published, seconds = generate(plan, executor, run, resume, command)
        _add_seconds(run, "publish", 0 if published.reused else seconds, published.pairs)
        typer.echo(f"{published.pairs} pairs in {published.path}", err=True)
        model = None
        if recipe.train is not None:
            executor.close()  # the trainer needs the memory
            model = _train(recipe, run, published.path, resume)
            if plan.held is not None:
                run_stage(executor, run, plan.answers("eval-after", model), resume)
    evaluation = _evaluate(plan, run, trained=model is not None) if plan.held else {}
    summary = {"stages": _stages(run), "pairs": published.pairs, "evaluation": evaluation}
    write_text(run.path / "summary.json", json.dumps(summary, indent=2) + "\n")
    _finish(run, recipe, command, evaluation)


def _held(recipe: Recipe) -> Held | None:
    if recipe.evaluate is None:
        return None
    from pydantic import ValidationError

    from pipeline.errors import ConfigError
    from pipeline.plan import Held
    from training.evaluation.config import EvaluateConfig
    from training.evaluation.prompts import build

    try:
        config = EvaluateConfig.model_validate(recipe.evaluate)
    except ValidationError as error:
        lines = [f"  - evaluate.{'.'.join(map(str, e['loc']))}: {e['msg']} ({e['input']!r})" for e in error.errors()]
        raise ConfigError("\n".join(["the recipe is wrong:", *lines])) from error
    # How answers are read changes no answer; it would only make the prompts look stale.
    asked = config.model_dump(mode="json", exclude={"parser", "max_tokens"})
    return Held(build, asked, config.max_tokens)


def _train_config(recipe: Recipe, run: Run) -> dict[str, Any]:
    from pipeline import models
    from pipeline.stages.publish import FOLDER

    own = {"model": recipe.sample.model, "seed": recipe.seed, **(recipe.train or {})}
    return {
        **own,
        "model": models.resolve(own["model"]),
        "dataset": str((run.path / FOLDER).resolve()),
        "output_dir": str((run.path / "train").resolve()),
    }


def _check_training(recipe: Recipe) -> None:
    """A typo under `train` must show now, not after hours of sampling."""
    if recipe.train is None:
        return
    from pipeline.errors import ConfigError
    from pipeline.store import Run
    from training.config import make_config
    from training.errors import ConfigError as TrainConfigError

    try:
        make_config(_train_config(recipe, Run(recipe.run_dir)))
    except TrainConfigError as error:
        lines = (f"  - {line}" for line in str(error).splitlines())
        raise ConfigError("\n".join(["`train` in the recipe is wrong:", *lines])) from error


def _train_record(recipe: Recipe, run: Run, config: dict[str, Any]) -> Record:
    """What the trained model depends on: its options, the data's content and the base model's, not where they lie."""
    from pipeline import models
    from pipeline.store import make_record
    from training.config import make_config

    published = run.record("publish")
    assert published is not None
    options = {**make_config(config).result_options(), "model": models.identity(config["model"])}
    return make_record("train", 1, {**options, "dataset": published.own}, {})


def _train(recipe: Recipe, run: Run, dataset: Path, resume: str) -> Path:
    """Train in a process of its own: it must not inherit the memory and threads of this one."""
    import yaml

    from pipeline.errors import PipelineError
    from pipeline.store import changes, write_text

    config = _train_config(recipe, run)
    new, old = _train_record(recipe, run, config), run.record("train")
    folder, model = run.folder("train"), run.folder("train") / "model"
    if resume == "never" or (old is not None and old.own != new.own):
        if resume == "always" and old is not None:
            raise PipelineError(f"training was done with other options: {'; '.join(changes(old, new))}", "restore them")
        run.clear("train")
        old = None
    if old is not None and old.finished and (model / "config.json").is_file():
        return model
    record = replace(new, seconds=old.seconds if old else 0.0)
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


def _evaluate(plan: Plan, run: Run, trained: bool) -> dict[str, Any]:
    from pipeline.scenes.vocabulary import VOCABULARY
    from training.evaluation.config import EvaluateConfig
    from training.evaluation.summarise import summarise

    parser = EvaluateConfig.model_validate(plan.recipe.evaluate).parser
    prompts = run.table("eval-source")
    stages = {"before": "eval-before", **({"after": "eval-after"} if trained else {})}
    return {name: summarise(prompts, run.table(stage), VOCABULARY, parser) for name, stage in stages.items()}


def _add_seconds(run: Run, stage: str, seconds: float, rows: int) -> None:
    record = run.record(stage)
    if record is not None:
        run.save(replace(record, seconds=record.seconds + seconds, rows=rows))


def _stages(run: Run) -> dict[str, dict[str, Any]]:
    names = ("source", "sample", "eval-source", "eval-before", "score", "pair", "publish", "train", "eval-after")
    records = [record for name in names if (record := run.record(name)) is not None]
    return {r.stage: {key: asdict(r)[key] for key in ("seconds", "rows", "failed")} for r in records}


def _finish(run: Run, recipe: Recipe, command: list[str], evaluation: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    from pipeline import report

    path = report.write(run.path, recipe.model_dump(mode="json"), " ".join(command))
    console = Console()
    if evaluation:
        table = Table("metric", *evaluation)
        for name in HEADLINE:
            values = [side.get(name) for side in evaluation.values()]
            table.add_row(name, *("-" if value is None else f"{value:.3f}" for value in values))
        console.print(table)
    console.print(f"report: {path}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    app()
