"""The console command ``vlm-preference``: everything that ``python -m`` can start, under one name.

Nobody imports this module.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar

import typer

from pipeline.base.command import CommandGroup, Lazy, command_group


class Commands(CommandGroup):
    lazy: ClassVar[Mapping[str, Lazy]] = {
        "init": Lazy("pipeline.commands.init"),
        "run": Lazy("pipeline.run"),
        "plan": Lazy("pipeline.run", ("--plan",), "Check every input; say what a run would do, and how much."),
        "browse": Lazy("pipeline.browse"),
        "export": Lazy("pipeline.export"),
        "publish": Lazy("pipeline.publish"),
        "train": Lazy("training.run"),
        "evaluate": Lazy("training.evaluate"),
        "lmms-eval": Lazy("training.evaluation.lmms_eval"),
        "probe": Lazy("training.probe"),
        "blindness": Lazy("pipeline.blindness.__main__"),
        "memory": Lazy("pipeline.commands.memory"),
        "recipes": Lazy("pipeline.commands.recipes", about="List the recipes that come along, or print one."),
        "schema": Lazy("pipeline.commands.schema"),
    }


def _version(value: bool) -> None:
    if value:
        from importlib.metadata import version

        typer.echo(f"vlm-preference {version('vlm-preference')}")
        raise typer.Exit


def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Preference data for vision-language models: generate, score, pair, publish, train, evaluate."""


app = command_group(main, Commands)


if __name__ == "__main__":
    app()
