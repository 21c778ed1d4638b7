"""What ``--plan`` prints: what is wrong, what would run and why, and how much that is."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from pipeline.base.errors import PipelineError
from pipeline.base.files import is_local
from pipeline.base.progress import Progress
from pipeline.base.sweep import beside
from pipeline.recipe import measure as measuring
from pipeline.recipe import preflight
from pipeline.recipe.estimate import Book, Estimate, totals
from pipeline.recipe.estimate import estimates as stage_estimates
from pipeline.recipe.measure import Measured
from pipeline.recipe.plan import Outlook, Plan
from pipeline.running.store import Run
from pipeline.scoring.run_dtype import sentence
from training import job
from training.evaluation.in_run import BenchmarksOfRun
from training.loop.train_costs import TrainCosts
from training.planning import foretell

#: Over which ``--measure`` runs the stages, where nobody says.
PROMPTS = 20


def show_plan(plan: Plan, wanted: frozenset[str], prompts: int | None = None) -> None:
    """Print the stages among ``wanted`` (names of ``--stages``), and what they have left to do. ``prompts``: over so
    many the stages are run for real, in a folder that is thrown away.

    Raises:
        PipelineError: something keeps the run from starting.
    """
    benchmarks = job.benchmarks_of(plan)
    problems = preflight.problems(plan, wanted, servers=True)
    preflight.raise_all(problems + job.problems(plan, benchmarks, wanted, servers=True))
    run = Run(plan.recipe.run_dir)
    outlooks = plan.outlook(run, wanted)
    stale = any(outlook.reasons for outlook in outlooks)
    outlooks += job.outlook(plan, run, benchmarks, stale, wanted)
    _print_stages(outlooks)
    if (dtypes := sentence(plan.recipe.model_dump(mode="json"))) is not None:
        typer.echo(dtypes)
    for note in job.notes(plan, run, wanted):
        typer.echo(f"note: {note}")
    if not any(outlook.reasons for outlook in outlooks):
        typer.echo("nothing is left to do")
        return
    _print_estimates(*foresee(plan, run, outlooks, benchmarks, prompts))


def foresee(
    plan: Plan, run: Run, outlooks: Sequence[Outlook], benchmarks: BenchmarksOfRun | None, prompts: int | None
) -> tuple[list[Estimate], Measured]:
    """What each stage that would run has to do, and what was measured of it over ``prompts`` (None: nothing)."""
    measured, costs = _measure(plan, run, outlooks, benchmarks, prompts) if prompts is not None else (Measured(), None)
    book = Book(plan, run, outlooks, measured)
    return [*stage_estimates(book), *foretell.estimates(plan, book, costs, benchmarks)], measured


def _measure(
    plan: Plan, run: Run, outlooks: Sequence[Outlook], benchmarks: BenchmarksOfRun | None, prompts: int
) -> tuple[Measured, TrainCosts | None]:
    pending = {outlook.stage for outlook in outlooks if outlook.reasons}
    stages = plan.generation()
    held = {stage.name for stage in stages} - pending
    if benchmarks is not None and any(name.startswith("evaluate ") for name in pending):
        stages += [benchmarks.source(measuring.most_read(prompts, plan)), benchmarks.sampling()]
    with beside(run.path, measuring.FOLDER) as place:
        measured = measuring.measure(plan, place, prompts, stages, held, Progress())
        costs = None
        if "train" in pending and measured.published is not None and is_local(run.path):
            try:
                costs = foretell.measure(plan, measured.published)
            except PipelineError as error:
                measured.failures["train"] = str(error)
        elif "train" in pending:
            measured.failures["train"] = f"{prompts} prompts gave no pair to train on; give more with --prompts"
    return measured, costs


def _print_stages(outlooks: Sequence[Outlook]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("stage", "done", "would run because")
    for outlook in outlooks:
        done = f"{outlook.done}" if outlook.shards is None else f"{outlook.done} of {outlook.shards}"
        table.add_row(outlook.stage, done, "\n".join(outlook.reasons) or "holds")
    Console(width=None if Console().is_terminal else 120).print(table)


def _print_estimates(estimates: Sequence[Estimate], measured: Measured) -> None:
    about = "left to do, as measured:" if measured.costs else "left to do, at most:"
    lines = [f"  {e.line}" for e in estimates if e.asks or e.what or e.seconds is not None]
    lines += [f"  {stage} was not measured: {reason}" for stage, reason in measured.failures.items()]
    typer.echo("\n".join([about, *lines, "altogether:", *(f"  {line}" for line in totals(estimates))]))
