"""The recipes that come with the package: ``vlm-preference recipes [show NAME]``."""

from __future__ import annotations

from typing import Annotated

import typer

from pipeline.base.command import command


def _names(incomplete: str) -> list[str]:
    from pipeline.recipe.load import built_in

    return [name for name in built_in() if name.startswith(incomplete)]


def main(
    action: Annotated[
        str | None, typer.Argument(metavar="[show]", help="Left out, all are listed.", autocompletion=lambda: ["show"])
    ] = None,
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="The recipe that is printed.", autocompletion=_names)
    ] = None,
) -> None:
    """List the recipes that come with the package, or print one to start from:

    vlm-preference recipes show quickstart > mine.yaml
    """
    from pipeline.base.errors import ConfigError
    from pipeline.recipe.load import built_in, find_recipe

    if action is None:
        for recipe in built_in():
            typer.echo(f"{recipe:12} {_about(find_recipe(recipe).read_text(encoding='utf-8'))}")
    elif action != "show" or name is None:
        raise ConfigError(f"recipes {action}: write `recipes show NAME`", f"NAME is one of {', '.join(built_in())}")
    else:
        typer.echo(find_recipe(name).read_text(encoding="utf-8"), nl=False)


def _about(text: str) -> str:
    """The first sentence of a recipe's comment.

    >>> _about("# yaml-language-server: x\\n# One thing, on\\n# 2 cores. And more.\\nname: a\\n")
    'One thing, on 2 cores.'
    """
    lines = [line[1:].strip() for line in text.splitlines() if line.startswith("#") and "language-server" not in line]
    return " ".join(lines).partition(". ")[0].rstrip(".:") + "."


app = command(main)

if __name__ == "__main__":
    app()
