"""Hand a published dataset to another project: ``python -m pipeline.export FORMAT DATASET OUT``.

FORMAT is llama_factory, ms_swift, trl, rlaif_v or pds (docs/exports.md), DATASET is ``runs/NAME/dataset``, and OUT a
folder that is written anew.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from pipeline.base.command import command


def main(
    export_format: Annotated[
        str, typer.Argument(metavar="FORMAT", help="llama_factory, ms_swift, trl, rlaif_v or pds.")
    ],
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="The folder `dataset` of a run.")],
    out: Annotated[
        Path, typer.Argument(metavar="OUT", help="The folder to write; an earlier export in it is replaced.")
    ],
    skip_unfit: Annotated[
        bool, typer.Option("--skip-unfit", help="Leave out and count the rows that the format cannot contain.")
    ] = False,
) -> None:
    """Write a published dataset in the format of another project."""
    from pipeline.base.progress import Progress
    from pipeline.exporting import formats
    from pipeline.exporting.write_export import dataset_name, export

    target = formats.find(export_format)
    with Progress().stage("export", None) as bar:

        def show(number: int, total: int) -> None:
            bar.total = total
            bar.advance(1, 0, {})

        done = export(target, dataset, out, skip_unfit, show)
    typer.echo(f"{done.pairs} pairs and {done.images} images in {out}")
    for reason, count in done.left_out.items():
        typer.echo(f"left out: {count} ({reason})")
    typer.echo(f"next: {target.use(shlex.quote(str(out.resolve())), dataset_name(out))}")


app = command(main)

if __name__ == "__main__":
    app()
