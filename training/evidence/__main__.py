"""Print a table of the evidence page: ``python -m training.evidence NAME``.

Every run is a run directory like any other, so a second call reads what is finished and runs only what is missing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from training.evidence import ablation, before_after, pds
from training.evidence.runs import Variant, metrics, run_recipe, run_variant, summary

#: Experiments that compare variants of a recipe; every other name is a recipe, told before and after.
ABLATIONS: dict[str, tuple[str, tuple[Variant, ...]]] = {
    "mdpo": ("mdpo", ablation.TERMS),
    "mdpo-images": ("mdpo", ablation.TERMS[:1] + ablation.IMAGES),
    "pds-sizes": ("pds_dpo", pds.SIZES),
    "pds-rewards": ("pds_dpo", pds.REWARDS),
}


def main(
    name: Annotated[str, typer.Argument(help=f"{', '.join(ABLATIONS)}, or a recipe.")] = "quickstart",
    overrides: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="For a recipe.")] = None,
    seeds: Annotated[str, typer.Option(help="Comma-separated.")] = "0,1,2",
    figure: Annotated[Path | None, typer.Option(help="Where the curves of an ablation go, as PNG.")] = None,
) -> None:
    """Run an experiment with several seeds and print its Markdown table."""
    numbers = [int(seed) for seed in seeds.split(",")]
    if name not in ABLATIONS:
        found = [summary(run_recipe(name, seed, overrides or [])) for seed in numbers]
        pairs = ", ".join(str(run["pairs"]) for run in found)
        typer.echo(f"{before_after.table(found)}\n\nseeds {seeds}; pairs {pairs}")
        return
    recipe, variants = ABLATIONS[name]
    runs = {variant.label: [run_variant(recipe, seed, variant) for seed in numbers] for variant in variants}
    trained = {label: [metrics(run) for run in found] for label, found in runs.items()}
    told = {label: [summary(run) for run in found] for label, found in runs.items()}
    typer.echo(ablation.table({label: list(zip(told[label], trained[label], strict=True)) for label in runs}))
    if figure:
        ablation.curves(trained, figure)


if __name__ == "__main__":
    typer.run(main)
