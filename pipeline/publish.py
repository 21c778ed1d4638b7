"""Hand a published dataset over: ``python -m pipeline.publish hub runs/NAME OWNER/REPO``."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from pipeline.base.command import command


class Place(StrEnum):
    hub = "hub"


def main(
    place: Annotated[Place, typer.Argument(help="hub: a dataset repository of the Hugging Face Hub.")],
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run, such as runs/quickstart.")],
    repo: Annotated[str, typer.Argument(metavar="OWNER/REPO", help="The repository; made if it is not there.")],
    private: Annotated[bool, typer.Option("--private", help="Only its owner and members may read it.")] = False,
    revision: Annotated[str | None, typer.Option(help="A branch, made if it is not there; default: main.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and list what would go; needs no network and no token.")
    ] = False,
) -> None:
    """Send what a run has published to the Hub: shards, card with its pictures, licence.

    Nothing is sent in which a path of this machine or a secret stands, and nothing without a licence. An interrupted
    upload goes on when the same command is given again.
    """
    from contextlib import nullcontext

    from pipeline.base.lock import locked
    from pipeline.publishing import hub, outgoing
    from pipeline.publishing.publish import FOLDER
    from pipeline.running.store import Run

    hub.check_name(repo)
    made_by = Run(run.parent if run.name == FOLDER else run)
    # A run that publishes meanwhile would put another folder in its place.
    with nullcontext() if dry_run or not made_by.path.is_dir() else locked(made_by.path, "python -m pipeline.publish"):
        going = outgoing.outgoing(made_by)
        outgoing.check_card((made_by.path / FOLDER / "README.md").read_text(encoding="utf-8"))
        outgoing.check_texts(going, made_by)
        for file in going if dry_run else ():
            typer.echo(f"{file.size:>15,}  {file.name}")
        total = f"{len(going)} files, {sum(file.size for file in going):,} bytes"
        if dry_run:
            typer.echo(f"{total}: nothing is sent; without --dry-run it goes to {repo}")
            return
        typer.echo(f"{total}, to {repo}", err=True)
        message = f"Preference pairs of the run {made_by.path.resolve().name}"
        address = hub.send(going, repo, private=private, revision=revision, message=message)
    typer.echo(address)


app = command(main)

if __name__ == "__main__":
    app()
