"""How much the training of a run and the evaluation behind it have to do, and what a few of its steps took."""

from __future__ import annotations

import json
import math
import sys
import tempfile
import time
from dataclasses import replace

import yaml

from pipeline.base import model_names as models
from pipeline.base.amounts import number
from pipeline.base.ending import run_child
from pipeline.base.errors import PipelineError
from pipeline.base.files import write_text
from pipeline.publishing import publish
from pipeline.recipe.estimate import (
    MEASURED,
    Asks,
    Book,
    Estimate,
    gpus_of,
    machines,
    measured_speed,
    times,
    workers_of,
)
from pipeline.recipe.plan import Plan
from pipeline.running.store import Run
from training import job
from training.config import TrainConfig, make_config
from training.config.by_hardware import settled
from training.config.steps import KEEP, total_steps
from training.evaluation.in_run import BenchmarksOfRun
from training.loop.train_costs import TrainCosts


def measure(plan: Plan, run: Run) -> TrainCosts:
    """Take a few steps on what ``run`` has published, as ``training.job.train`` would, in a process of their own.

    Raises:
        PipelineError: it could not be; the process has said why.
    """
    config = run.folder("train") / "config.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    write_text(config, yaml.safe_dump(job.train_config(plan, run), sort_keys=False))
    started = time.monotonic()
    with tempfile.TemporaryFile() as out:
        flags = ["--plan", "--measure", "--json"]
        if code := run_child([sys.executable, "-m", "training.run", str(config), *flags], stdout=out.fileno()):
            raise PipelineError(f"training could not be measured: it ended with status {code}", "its message is above")
        out.seek(0)
        costs = TrainCosts(**json.loads(out.read().splitlines()[-1]))
    return replace(costs, start=max(costs.start, time.monotonic() - started - costs.spent))


def estimates(plan: Plan, book: Book, costs: TrainCosts | None, benchmarks: BenchmarksOfRun | None) -> list[Estimate]:
    """Of training, and of what measures it, as far as it would run."""
    made = [_training(plan, book, costs)] if "train" in book.pending else []
    if "eval-after" in book.pending:
        made.append(_answering(plan, book))
    for side in ("before", "after"):
        if benchmarks is not None and f"evaluate {side}" in book.pending:
            made.append(_benchmarks(benchmarks, book, f"evaluate {side}"))
    return made


def _training(plan: Plan, book: Book, costs: TrainCosts | None) -> Estimate:
    config = job.train_config(plan, book.run)
    options = settled(make_config(config), machines())
    rows = _pairs(book)
    pairs = _drawn(rows, options, costs)
    # How many pairs a draw leaves, only their prompts tell.
    steps = total_steps(pairs, options) if pairs is not None else None
    what = f"{number(rows)} pairs x {options.epochs} epochs: {number(steps)} optimiser steps"
    saved = job.saved_model(plan, book.run)
    kept = KEEP if steps is None else min(KEEP, math.ceil(steps / options.save_steps))
    size = saved.disk(options, kept) if saved is not None else None
    gpus = float(options.workers) if machines().gpus and isinstance(options.workers, int) else 0.0
    made = Estimate("train", rows, what, start=None, gpus=gpus, size=size)
    if costs is not None and rows is not None and pairs is not None:
        pace = f"{costs.step * options.batch_size:.3g} s a step ({MEASURED})"
        seconds, size = costs.seconds(options, rows, pairs), costs.disk(options, pairs)
        return replace(made, start=costs.start, seconds=seconds, pace=pace, size=size)
    speed = measured_speed(book.run, "train", {**options.result_options(), "model": models.identity(config["model"])})
    if speed is None or rows is None:
        return made
    pace = f"{speed.rows_per_second:.3g} pairs of {options.epochs} epochs/s ({speed.run})"
    return replace(made, start=0.0, seconds=rows / speed.rows_per_second, pace=pace)


def _pairs(book: Book) -> int | None:
    published = publish.current(book.run)
    return int(published.extras["pairs"]) if "publish" not in book.pending and published is not None else book.pairs()


def _drawn(rows: int | None, options: TrainConfig, costs: TrainCosts | None) -> int | None:
    """Pairs of an epoch."""
    if rows is None or (options.draw is not None and costs is None):
        return None
    pairs = rows if options.limit is None else min(rows, options.limit)
    return pairs if costs is None or options.draw is None else math.ceil(rows * costs.pairs_per_row)


def _answering(plan: Plan, book: Book) -> Estimate:
    """The model after training, which is asked what it was asked before, by an engine of its own."""
    before = next(stage for stage in plan.before() if stage.name == "eval-before")
    made = book.estimate(before, opens=True, outlook=book.pending["eval-after"])
    return replace(made, stage="eval-after", start=book.start_of(before))


def _benchmarks(benchmarks: BenchmarksOfRun, book: Book, stage: str) -> Estimate:
    """Questions of suites that have not been asked yet, each once, by an engine of its own."""
    pending = {reason.partition(":")[0] for reason in book.pending[stage].reasons}
    suites = [suite for suite in benchmarks.suites if suite.name in pending]
    questions = {(question.prompt, question.images) for suite in suites for question in suite.questions}
    judged = sum(len(suite.questions) for suite in suites if suite.judge_prompt is not None)
    calls, sampling = len(questions), benchmarks.sampling()
    images = sum(len(shown) for _, shown in questions)
    asks = Asks(calls, images, None, calls, times(calls, benchmarks.config.max_tokens))
    what = f"{calls:,} questions" + (f", {judged:,} judgements" if judged else "")
    made = Estimate(stage, calls, what, asks, start=book.start_of(sampling), gpus=gpus_of(sampling.worker))
    cost = book.measured.costs.get(sampling.name)
    if cost is None or judged:  # how long a judge takes nobody has measured
        return made
    seconds = cost.seconds(calls, workers_of(sampling.worker, calls))
    return (
        made if seconds is None else replace(made, seconds=seconds, pace=f"{calls / seconds:.3g} rows/s ({MEASURED})")
    )
