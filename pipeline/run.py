"""The command line: ``python -m pipeline.run [RECIPE|FILE] [key=value ...]``.

Nobody imports this module; it alone reaches up and starts training and evaluation.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, replace
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pipeline.base.command import command

if TYPE_CHECKING:
    from pipeline.recipe.plan import Plan
    from pipeline.running.store import Run
    from training.evaluation.in_run import BenchmarksOfRun

# Every other import stands in the function that needs it: --help answers without Arrow, Ray or torch.
#: Shown at the end, where the evaluation has them.
HEADLINE = ("chair_s", "chair_i", "cover", "shr", "mean_length", "pope_accuracy", "pope_f1", "pope_yes_ratio")


class ResumeMode(StrEnum):
    never = "never"
    if_possible = "if-possible"
    always = "always"


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
    stages: Annotated[
        str | None,
        typer.Option(
            help="Run only these, such as score,pair: imagine, source, sample, rewrite, score, pair, publish, train, "
            "evaluate."
        ),
    ] = None,
    show_plan: Annotated[
        bool,
        typer.Option("--plan", help="Check every input, show what would run, why, and how much it is; run nothing."),
    ] = False,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure", help="With --plan: run every stage over a few prompts, and say how long all of it takes."
        ),
    ] = False,
    prompts: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="With --measure: over so many prompts; left out, 20.")
    ] = None,
    preview: Annotated[
        int, typer.Option(min=0, metavar="N", help="Print the pairs of N prompts; the run is not touched.")
    ] = 0,
) -> None:
    """Make a preference dataset from images and prompts, train on it, and measure what it did.

    A killed run continues where it stopped when the same command is given again. The result is in OUTPUT_DIR/NAME:
    dataset/, train/model, report.html and summary.json.
    """
    _refuse_idle_flags(show_plan, measure, prompts, preview)
    plan, command = _read(list(arguments or []), resume == ResumeMode.never)
    if preview:
        from pipeline.recipe.preview import show
        from training import job

        job.check(plan)
        show(plan, preview)
    elif show_plan:
        from pipeline.recipe.plan import stage_groups
        from training.planning.show_plan import PROMPTS
        from training.planning.show_plan import show_plan as show_all

        _check_schema(plan, resume.value)
        show_all(plan, stage_groups(stages), (prompts or PROMPTS) if measure else None)
    else:
        _start(plan, resume.value, stages, command)


def _read(arguments: list[str], again: bool = False) -> tuple[Plan, list[str]]:
    """The plan, checked as far as can be without running it, and the command that says the same anywhere. ``again``:
    the run begins anew."""
    from pipeline.recipe.load import load_recipe
    from pipeline.recipe.plan import Plan
    from training import job
    from training.config.recipe import WholeRecipe

    named = bool(arguments) and "=" not in arguments[0]
    name, overrides = (arguments[0], arguments[1:]) if named else ("quickstart", arguments)
    recipe = load_recipe(name, overrides, WholeRecipe)
    if recipe.dtype == "auto" and (dtype := _dtype(recipe.run_dir, again)) != "float32":
        recipe = load_recipe(name, [*overrides, f"dtype={dtype}"], WholeRecipe)
    plan = Plan(recipe, job.evaluation_of(recipe))
    shown = [word for word in overrides if not word.startswith("output_dir=")]
    # Goes into the card: not where files lie on this machine, or equal datasets would differ by their cards.
    return plan, ["python", "-m", "pipeline.run", *map(shlex.quote, [Path(name).name, *shown])]


def _dtype(run: Path, again: bool) -> str:
    """What the run in a folder was begun in, which it keeps, or else what the GPUs of the cluster have."""
    from pipeline.base.progress import tell
    from pipeline.publishing.hallucinated import RECIPE
    from pipeline.running.pool import hardware
    from pipeline.scoring.run_dtype import begun_in

    begun, there = None if again else begun_in(run, RECIPE), hardware()
    if begun is not None and begun != there.dtype:
        where = f"{there.gpus} GPUs" if there.gpus else "no GPU"
        remedy = "" if there.gpus else "; RAY_ADDRESS names the cluster with the GPUs"
        tell(
            f"{run} was begun in {begun} and goes on in it; begun here, with {where}, it would be {there.dtype} "
            f"(dtype={there.dtype}, or --resume never){remedy}"
        )
    return begun or there.dtype


def _refuse_idle_flags(show_plan: bool, measure: bool, prompts: int | None, preview: int) -> None:
    from pipeline.base.errors import ConfigError

    if preview and show_plan:
        raise ConfigError("--preview asks the models, and --plan runs nothing", "give one of them")
    if measure and not show_plan:
        raise ConfigError("--measure is for --plan", "add --plan")
    if prompts is not None and not measure:
        raise ConfigError("--prompts is for --plan --measure", "add --measure, or take --prompts out")


def _check_schema(plan: Plan, resume: Any) -> None:
    """A run that this version cannot go on with stays as it is."""
    from pipeline.running.resume import check_schema
    from pipeline.running.store import Run

    if resume != "never":
        check_schema(Run(plan.recipe.run_dir), plan.names())


def _start(plan: Plan, resume: Any, stages: str | None, command: list[str]) -> None:
    from pipeline.base import secrets
    from pipeline.base.lock import locked
    from pipeline.recipe import preflight
    from pipeline.recipe.plan import stage_groups
    from pipeline.running.store import Run
    from training import job

    wanted = stage_groups(stages)
    _check_schema(plan, resume)
    benchmarks = job.benchmarks_of(plan)
    # What is missing shows now, not after hours.
    preflight.raise_all(preflight.problems(plan, wanted) + job.problems(plan, benchmarks, wanted, servers=False))
    with locked(Run(plan.recipe.run_dir).path, secrets.text(" ".join(command))):
        _run(plan, resume, wanted, command, benchmarks)


def _run(
    plan: Plan, resume: Any, wanted: frozenset[str], command: list[str], benchmarks: BenchmarksOfRun | None
) -> None:
    from pipeline.base import secrets
    from pipeline.base.files import is_local, remove, write_text
    from pipeline.base.marks import FILE as MARKS
    from pipeline.base.progress import tell
    from pipeline.base.sweep import sweep, sweep_beside, sweep_shared
    from pipeline.publishing import blindness_gate, report
    from pipeline.publishing.collect import collect
    from pipeline.publishing.hallucinated import RECIPE
    from pipeline.publishing.no_pairs import few_pairs
    from pipeline.publishing.publish import FOLDER, current
    from pipeline.recipe import plan as steps
    from pipeline.recipe.measure import FOLDER as MEASURING
    from pipeline.running.executor import Executor
    from pipeline.running.store import Run
    from pipeline.sources.imagine.rank import gain
    from training import job

    recipe = plan.recipe

    @cache
    def outdate() -> None:
        """Interrupted later, an old summary would describe data that no longer exists."""
        remove(run.path / "summary.json")

    run = Run(recipe.run_dir, plan.names(), changing=outdate)
    sweep(run.path, swapped=(FOLDER,), apart=("train", "evaluate", f"{FOLDER}-reference"))
    sweep(run.path / "evaluate")  # runs of their own, below this one
    sweep_shared(run.path / f"{FOLDER}-reference")
    job.sweep_training(run.path / "train")
    if is_local(run.path):
        sweep_beside(run.path, MEASURING)
    # What the tables were made by, for whoever looks at them later.
    write_text(run.path / RECIPE, json.dumps(secrets.options(recipe.model_dump(mode="json")), indent=2) + "\n")
    # For the card and the report; training changes nothing of it.
    findings = cache(lambda: collect(run))
    with Executor(run, recipe.max_failure_rate, recipe.shard_retries) as executor:
        steps.generate(plan, run, executor, resume, wanted)
        if "publish" in wanted:
            published, seconds = steps.publish_run(plan, run, command, findings)
            _add_seconds(run, "publish", 0 if published.reused else seconds, published.pairs)
            typer.echo(f"{published.pairs} pairs in {published.path}", err=True)
            if published.similar is not None:
                typer.echo(f"{published.similar} of them have a similar image", err=True)
            if (run.path / MARKS).exists():
                obeyed = ", ".join(f"{mark} {number}" for mark, number in sorted(findings().curated.items()))
                typer.echo(f"{MARKS}: {obeyed or 'none of its pairs is there'}", err=True)
            alarms = (*published.warnings(), *few_pairs(run, published.pairs), *blindness_gate.warnings(run))
            for warning in alarms:
                typer.echo(f"warning: {warning}", err=True)
        measured = benchmarks if "evaluate" in wanted else None
        if measured is not None:
            executor.close()  # what comes now opens models of its own
            tell("measuring the model before training")
            measured.measure(run, "before", again=resume == "never", changing=outdate)
        if recipe.train is not None and "train" in wanted:
            executor.close()  # the trainer needs the memory
            job.train(plan, run, run.path / FOLDER, resume)
        trained = job.trained_model(plan, run)
        if measured is not None and trained is not None:
            tell("measuring the model after training")
            measured.measure(run, "after", trained, again=resume == "never", changing=outdate)
        if plan.held is not None and trained is not None and "evaluate" in wanted:
            steps.run_stage(executor, plan.answers("eval-after", trained), resume)
    if trained is None:  # what is there of another model is nothing of this run
        run = Run(run.path, plan.names() - {"train", "eval-after"})
    evaluation = job.evaluate(plan, run, trained)
    rows = benchmarks.results(run, trained) if benchmarks is not None else []
    there = current(run)
    pairs = there.extras["pairs"] if there is not None else 0
    summary: dict[str, Any] = {"stages": _stages(plan, run), "pairs": pairs, "evaluation": evaluation}
    summary["style"] = report.style(run)
    summary["blindness"] = report.blindness(run)
    if rows:
        summary["benchmarks"] = rows
    if there is not None and "similar" in there.extras:
        summary["similar"] = there.extras["similar"]
    if (ranked := run.record("rank")) is not None and (faithful := gain(ranked.extras)) is not None:
        summary["images"] = faithful
    write_text(run.path / "summary.json", json.dumps(summary, indent=2) + "\n")
    told = recipe.model_dump(mode="json"), " ".join(command)
    # A source that also holds questions about what was sampled may have to wait for later stages.
    if not run.shards("source"):
        remove(run.path / "report.html")
    elif not report.holds(run, *told):
        report.write(run, *told, findings=findings())
    _show(run.path / "report.html", evaluation, rows)


def _add_seconds(run: Run, stage: str, seconds: float, rows: int) -> None:
    record = run.record(stage)
    if record is not None:
        run.save(replace(record, seconds=record.seconds + seconds, rows=rows))


def _stages(plan: Plan, run: Run) -> dict[str, dict[str, Any]]:
    names = [*(stage.name for stage in plan.generation()), "publish", "train", "eval-after"]
    records = [record for name in names if (record := run.record(name)) is not None]
    return {r.stage: {key: asdict(r)[key] for key in ("seconds", "rows", "failed", "extras")} for r in records}


def _show(path: Path, evaluation: dict[str, Any], benchmarks: list[dict[str, Any]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if evaluation:
        table = Table("metric", *evaluation)
        for name in HEADLINE:
            values = [side.get(name) for side in evaluation.values()]
            table.add_row(name, *("-" if value is None else f"{value:.3f}" for value in values))
        console.print(table)
    if benchmarks:
        table = Table("suite", "metric", "before", "after", "difference", "p")
        for row in benchmarks:
            numbers = (row["before"], row["after"], row["difference"], row["p_value"])
            table.add_row(row["title"], row["metric"], *("-" if value is None else f"{value:.3f}" for value in numbers))
        console.print(table)
    if path.is_file():
        console.print(f"report: {path}", soft_wrap=True, highlight=False)


app = command(main, progress=True)

if __name__ == "__main__":
    app()
