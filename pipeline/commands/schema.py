"""The JSON Schema of a recipe: ``vlm-preference schema``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.base.command import command

SCHEMA = Path(__file__).parents[1] / "recipe.schema.json"


def main(
    path: Annotated[bool, typer.Option("--path", help="Print where it lies, for the line of an editor.")] = False,
) -> None:
    """Print the JSON Schema with which editors complete and check recipes."""
    typer.echo(SCHEMA if path else SCHEMA.read_text(encoding="utf-8").rstrip("\n"))


app = command(main)

if __name__ == "__main__":
    app()
