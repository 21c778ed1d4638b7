"""Print a table of the evidence page: ``python -m training.evidence NAME``.

Every run is a run directory like any other, so a second call reads what is finished and runs only what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from pipeline.base.command import command
from pipeline.base.errors import ConfigError
from training.evidence import before_after, figure, held_out, label_accuracy, seed_table, share
from training.evidence import kept as kept_numbers
from training.evidence.experiments import EXPERIMENTS, Experiment
from training.evidence.metric_columns import FinishedRun, numbers
from training.evidence.runs import Variant, metrics, on_validation_scenes, row, run, summary


def main(
    name: Annotated[str, typer.Argument(help=f"{', '.join(EXPERIMENTS)}, or a recipe.")] = "quickstart",
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="For a recipe.")] = None,
    seeds: Annotated[str, typer.Option(help="Comma-separated. Probes need two at least.")] = "0,1,2",
    plot: Annotated[
        Path | None,
        typer.Option(
            "--figure",
            help="Where bars go, as PNG, and beside them curves (NAME-curves.png), the front, accuracies.",
        ),
    ] = None,
    validation: Annotated[
        bool, typer.Option("--validation", help="Measure on the scenes that settings are chosen by.")
    ] = False,
    results: Annotated[
        Path | None,
        typer.Option(
            help="A JSON file of an experiment's numbers: what it has is not run again, what it lacks is added."
        ),
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="A row of the experiment, by its name in the table; may be repeated.")
    ] = None,
) -> None:
    """Run an experiment, or a recipe, with several seeds and print its Markdown table."""
    try:
        chosen_seeds = [int(seed) for seed in seeds.split(",")]
    except ValueError as error:
        raise ConfigError(f"--seeds {seeds!r} is no list of whole numbers; give some such as 0,1,2") from error
    if name in EXPERIMENTS:
        chosen = _chosen(EXPERIMENTS[name], only or [], validation)
        _experiment(chosen, EXPERIMENTS[name].variants[0], chosen_seeds, plot, results)
    else:
        _recipe(name, overrides or [], chosen_seeds, plot)


def _chosen(experiment: Experiment, labels: Sequence[str], validation: bool) -> Experiment:
    """The experiment with the rows ``labels`` alone, if any are named.

    Raises:
        ConfigError: it has no such row.
    """
    names = [variant.label for variant in experiment.variants]
    if unknown := [label for label in labels if label not in names]:
        raise ConfigError(f"--only {unknown[0]!r} is no row of the experiment", f"it has {', '.join(names)}")
    variants = tuple(variant for variant in experiment.variants if not labels or variant.label in labels)
    return replace(experiment, variants=tuple(map(on_validation_scenes, variants)) if validation else variants)


def _experiment(
    experiment: Experiment, first: Variant, seeds: list[int], plot: Path | None, results: Path | None
) -> None:
    titles = [column.title for column in experiment.columns]
    rows = {variant: row(experiment.recipe, variant) for variant in experiment.variants}
    kept = {variant: kept_numbers.read(results, of, titles) for variant, of in rows.items()}
    missing = [(variant, seed) for variant in experiment.variants for seed in seeds if seed not in kept[variant]]
    # All runs first: the pairs that a model is probed on are another seed's.
    paths = {(variant, seed): run(experiment.recipe, seed, variant) for variant, seed in missing}
    finished: dict[tuple[Variant, int], FinishedRun] = {}
    for (variant, seed), path in paths.items():
        finished[variant, seed] = _finished(experiment, first, seeds, seed, path)
        kept[variant][seed] = numbers(finished[variant, seed], experiment.columns)
        # Of a single seed no pairs are held out: its probes are to be made when there are more.
        if results and (finished[variant, seed].probe is not None or not experiment.probed):
            kept_numbers.add(results, rows[variant], seed, kept[variant][seed])
    # A run that begins with a trained model has that one before it, which is no base of the table.
    base = next((variant.label for variant in experiment.variants if variant.after is None), None)
    cells = seed_table.values({variant.label: [of[seed] for seed in seeds] for variant, of in kept.items()}, base)
    typer.echo(f"{seed_table.markdown(cells, titles)}\n\nseeds {', '.join(map(str, seeds))}")
    if plot:
        (figure.over_levels if experiment.levels else figure.bars)(cells, titles, plot)
        if experiment.accuracy:
            figure.over_accuracy(cells, plot.with_stem(f"{plot.stem}-accuracy"))
        if experiment.front:
            figure.front(cells, plot.with_stem(f"{plot.stem}-front"))
        # Of rows that come from a file nothing is known about single steps.
        logged = {
            variant.label: [finished[variant, seed].steps for seed in seeds]
            for variant in experiment.variants
            if all((variant, seed) in finished for seed in seeds)
        }
        if logged and figure.has_curves(logged):
            figure.curves(logged, plot.with_stem(f"{plot.stem}-curves"))


def _finished(experiment: Experiment, first: Variant, seeds: list[int], seed: int, path: Path) -> FinishedRun:
    """A run, with what the experiment looks at beyond its summary. Models are probed on pairs of the variant ``first``
    of another seed."""
    probed = None
    if experiment.probed and (other := held_out.held_out_seed(seed, seeds)) is not None:
        run(experiment.recipe, other, first)
        base = share.plan(experiment.recipe).base().model
        probed = held_out.probe(path, experiment.recipe, base, seed, seeds, first.name)
    right = label_accuracy.measure(path) if experiment.accuracy else None
    return FinishedRun(summary(path), metrics(path), probed, right)


def _recipe(recipe: str, overrides: list[str], seeds: list[int], plot: Path | None) -> None:
    paths = [run(recipe, seed, Variant("", recipe, tuple(overrides))) for seed in seeds]
    summaries = [summary(path) for path in paths]
    pairs = ", ".join(str(content["pairs"]) for content in summaries)
    typer.echo(f"{before_after.table(summaries)}\n\nseeds {', '.join(map(str, seeds))}; pairs {pairs}")
    if plot:
        values = before_after.values(summaries)
        figure.bars(values, [*before_after.METRICS, before_after.FAITHFUL], plot)
        logged = {recipe: [metrics(path) for path in paths if (path / "train" / "metrics.jsonl").is_file()]}
        if all(logged.values()) and figure.has_curves(logged):
            figure.curves(logged, plot.with_stem(f"{plot.stem}-curves"))


app = command(main)

if __name__ == "__main__":
    app()
