"""``vlm-preference``: every command under one name."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipeline.base.command import Lazy
from pipeline.cli import Commands, app
from pipeline.recipe.load import built_in, load_recipe

runner = CliRunner()


def test_every_command_is_there_and_answers_help() -> None:
    listed = runner.invoke(app, ["--help"]).output
    for name, entry in Commands.lazy.items():
        assert name in listed and importlib.import_module(entry.module).app is not None
        result = runner.invoke(app, [name, "--help"])
        assert result.exit_code == 0 and name in result.output


def test_nothing_given_shows_what_there_is() -> None:
    result = runner.invoke(app, [])
    assert (result.exit_code, result.output) == (0, runner.invoke(app, ["--help"]).output)


def test_a_missing_word_is_one_line() -> None:
    result = runner.invoke(app, ["publish"])
    assert result.exit_code == 2 and result.output.startswith("error: Missing argument 'place'. Choose from: hub\n")


def test_what_is_given_reaches_the_command(tmp_path: Path) -> None:
    result = runner.invoke(app, ["plan", "quickstart", f"output_dir={tmp_path}"])
    assert result.exit_code == 0 and "never ran" in result.output and not list(tmp_path.iterdir())
    result = runner.invoke(app, ["run", "quickstart", "source.scens=4"])
    assert result.exit_code == 2 and "did you mean source.scenes?" in result.output


@pytest.mark.parametrize(
    ("name", "says"), [("rn", "did you mean run?"), ("evalute", "did you mean evaluate?"), ("x", "")]
)
def test_a_misspelt_command_is_one_line(name: str, says: str) -> None:
    result = runner.invoke(app, [name])
    assert result.exit_code == 2 and f"there is no command {name!r}" in result.output and says in result.output
    assert "Traceback" not in result.output


def test_the_list_imports_a_module_only_when_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("raise RuntimeError('imported')")
    code = (
        "import sys; from pipeline import cli; from pipeline.base.command import Lazy\n"
        "cli.Commands.lazy = {**cli.Commands.lazy, 'broken': Lazy('broken')}\n"
        "cli.app(['schema', '--path'])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.strip().endswith("recipe.schema.json"), done.stderr
    assert Lazy("broken").flags == ()


def test_a_recipe_that_is_shown_is_one_to_start_from(tmp_path: Path) -> None:
    listed = runner.invoke(app, ["recipes"]).output
    for name in built_in():
        assert name in listed
        path = tmp_path / f"{name} mine.yaml"
        path.write_text(runner.invoke(app, ["recipes", "show", name]).output)
        assert load_recipe(path).model_dump() == load_recipe(name).model_dump()
    wrong = runner.invoke(app, ["recipes", "show", "mpdo"])
    assert wrong.exit_code == 2 and "did you mean 'mdpo'?" in wrong.output
    assert "write `recipes show NAME`" in runner.invoke(app, ["recipes", "print"]).output


def test_the_schema_is_json() -> None:
    assert json.loads(runner.invoke(app, ["schema"]).output)["title"] == "Recipe of vlm-preference"


def test_completion_knows_the_commands() -> None:
    done = runner.invoke(app, [], env={"_VLM_PREFERENCE_COMPLETE": "complete_bash", "COMP_WORDS": "vlm-preference ev",
                                       "COMP_CWORD": "1"}, prog_name="vlm-preference")  # fmt: skip
    assert "evaluate" in done.output.split()


def test_completion_knows_the_recipes() -> None:
    done = runner.invoke(app, [], env={"_VLM_PREFERENCE_COMPLETE": "complete_bash", "COMP_CWORD": "3",
                                       "COMP_WORDS": "vlm-preference recipes show m"},
                         prog_name="vlm-preference")  # fmt: skip
    assert done.output.split() == ["mdpo"]
