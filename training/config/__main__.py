"""Write what describes the options: ``python -m training.config [--check]``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from pipeline.base.command import command

ROOT = Path(__file__).parents[2]


def texts() -> dict[Path, str]:
    """What is written: every file with its text."""
    import json

    from training.config.json_schema import recipe_schema
    from training.config.page import page

    schema = json.dumps(recipe_schema(), indent=1, ensure_ascii=False) + "\n"
    return {ROOT / "docs" / "configuration.md": page(), ROOT / "pipeline" / "recipe.schema.json": schema}


def main(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail where a file is not current.")] = False,
) -> None:
    """Write docs/configuration.md and pipeline/recipe.schema.json from the fields of the options."""
    from pipeline.base.errors import InputError

    for path, text in texts().items():
        if not check:
            path.write_text(text, encoding="utf-8")
        elif not path.is_file() or path.read_text(encoding="utf-8") != text:
            raise InputError(f"{path.relative_to(ROOT)} is not current", "run python -m training.config")


app = command(main)

if __name__ == "__main__":
    app()
