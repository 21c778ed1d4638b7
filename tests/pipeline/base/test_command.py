"""The one place where errors leave the program: one short message, no secret, and a traceback only if asked for."""

from __future__ import annotations

import ast
import errno
import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner, Result

from pipeline.base.command import command, message
from pipeline.base.errors import LONGEST, UserError
from pipeline.base.progress import Progress, ProgressBar, is_quiet, tell

ROOT = Path(__file__).parents[3]
SECRET = "sk-planted-8f3a91c2d7"


def ended(error: BaseException, *arguments: str, named: tuple[type[Exception], ...] = ()) -> Result:
    """What a command ends with in which ``error`` is raised."""

    def main(number: int = 0) -> None:
        raise error

    return CliRunner().invoke(command(main, named), [*arguments])


def chained(outer: Exception, inner: Exception) -> Exception:
    outer.__cause__ = inner
    return outer


class Special(UserError):
    exit_code = 3


@pytest.mark.parametrize(
    ("error", "code", "first_line"),
    [
        (UserError("row 3 of a.jsonl: no image; give one"), 2, "row 3 of a.jsonl: no image; give one"),
        (Special("too many"), 3, "too many"),
        (OSError(errno.ENOSPC, "No space left on device", "a/b"), 2, "no space left while writing a/b"),
        (OSError(errno.EROFS, "Read-only file system", "a/b"), 2, "cannot write a/b: the file system is read-only"),
        (RuntimeError("I/O error: No space left on device (os error 28)"), 2, "no space left while writing a file"),
        (chained(RuntimeError("zip"), OSError(errno.ENOSPC, "Full", "m")), 2, "no space left while writing m\n"),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"), 2, "no space left"),
        (PermissionError(errno.EACCES, "Permission denied", "a/b"), 2, "a/b: Permission denied\n  -> check who"),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "a"), 2, "a: Is a directory\n  -> give a file"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "a"), 2, "a: No such file or directory"),
        (OSError("we could not reach the hub\nat all"), 2, "we could not reach the hub at all"),
        (
            UserError("no model x (OSError: no hub\nTry again\n    later.); give y"),
            2,
            "no model x (OSError: no hub Try",
        ),
        (UserError("x: wrong\n\n  -> mend\nit\n"), 2, "x: wrong\n  -> mend it\n"),
        (MemoryError(), 2, "out of memory\n  -> lower"),
        (ModuleNotFoundError("Install s3fs to access S3"), 2, "Install s3fs to access S3\n  -> install it"),
        (ZeroDivisionError("a\nb"), 1, "unexpected ZeroDivisionError: a b\n  -> --debug shows the traceback"),
        (ValueError("what"), 1, "unexpected ValueError: what"),
        (RecursionError("deep"), 1, "unexpected RecursionError: deep"),
        (UnicodeEncodeError("utf-8", "\ud800", 0, 1, "no"), 1, "unexpected UnicodeEncodeError"),
    ],
)
def test_every_error_is_one_short_message(error: BaseException, code: int, first_line: str) -> None:
    result = ended(error)
    assert result.exit_code == code and result.stdout == ""
    assert result.stderr.startswith(f"error: {first_line}") and "Traceback" not in result.stderr
    assert len(result.stderr.splitlines()) <= 2
    traced = ended(error, "--debug")
    assert traced.exit_code == code and "Traceback" in traced.stderr and "in main" in traced.stderr
    assert traced.stderr.endswith(result.stderr)


def test_a_command_may_name_further_errors_that_are_meant_for_the_user() -> None:
    result = ended(ValueError("row 3: no text"), named=(ValueError,))
    assert (result.exit_code, result.stderr) == (2, "error: row 3: no text\n")


def test_an_interruption_says_that_the_same_command_continues() -> None:
    result = ended(KeyboardInterrupt())
    assert (result.exit_code, result.stderr) == (130, "interrupted; the same command continues\n")


@pytest.mark.parametrize("error", [UserError("x" * 3_000_000), ValueError("y\n" * 2_000_000)])
def test_a_message_is_bounded(error: Exception) -> None:
    result = ended(error)
    assert (len(result.stderr) <= LONGEST + 1 and "characters)" in result.stderr) or "unexpected" in result.stderr
    assert len(message(error)[0]) <= LONGEST


@pytest.mark.parametrize("arguments", [["--number", "many"], ["--nmuber", "1"], ["surplus"], [f"--api-key={SECRET}"]])
def test_wrong_arguments_are_one_short_message(arguments: list[str]) -> None:
    result = ended(AssertionError(), *arguments)
    assert result.exit_code == 2 and result.stderr.startswith("error: ") and "--help" in result.stderr
    assert len(result.stderr.splitlines()) == 2 and SECRET not in result.stderr


def test_what_a_terminal_would_act_on_is_written_out() -> None:
    result = ended(UserError("a\x1b[2Jb\0c\ud800d\n  -> e"))
    assert result.stderr == "error: a\\x1b[2Jb\\x00c\\ud800d\n  -> e\n"


@pytest.mark.parametrize(
    "text",
    [
        f"cannot open https://me:{SECRET}@host/a.png",
        f"cannot open https://host/a.png?sig={SECRET}&x=1",
        f"cannot open s3://me:{SECRET}@bucket/x",
        f"proxy me:{SECRET}@host:80",
        f"unknown key {SECRET}",
        f"options {{'api_key': '{SECRET[12:]}'}}",
        f"HF_TOKEN={SECRET[12:]}",
        f"status 401: Authorization: Bearer {SECRET[12:]}",
        f"password: {SECRET[12:]}",
        f"the variable holds {SECRET[3:]}",
    ],
)
def test_no_secret_is_said_with_or_without_a_traceback(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_SERVICE_TOKEN", SECRET[3:])
    for error in (UserError(text), RuntimeError(text), chained(RuntimeError("x"), OSError(text))):
        for arguments in ([], ["--debug"]):
            stderr = ended(error, *arguments).stderr
            assert SECRET[12:] not in stderr and "error: " in stderr


def commands() -> list[Path]:
    """Every file of the packages that can be run."""
    files = (path for package in ("pipeline", "reward", "training") for path in (ROOT / package).rglob("*.py"))
    return sorted(path for path in files if '__name__ == "__main__"' in path.read_text(encoding="utf-8"))


def test_every_command_line_ends_here() -> None:
    paths = commands()
    assert len(paths) >= 14
    for path in paths:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        made = [
            node
            for node in tree.body
            if isinstance(node, ast.Assign)
            and isinstance(node.value, ast.Call)
            and isinstance(node.value.func, ast.Name)
            and node.value.func.id in ("command", "command_group")
        ]
        assert len(made) == 1 and ast.unparse(tree.body[-1]).endswith("app()"), path


@pytest.mark.parametrize("path", commands(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_command_line_has_errors_of_its_own(path: Path) -> None:
    """Where an error is told and an exit code chosen, this module would be passed by."""
    assert "typer.Exit(" not in path.read_text(encoding="utf-8")


def test_a_reader_that_goes_away_is_no_error(tmp_path: Path) -> None:
    script = tmp_path / "many.py"
    script.write_text(
        "from pipeline.base.command import command\n"
        "def main() -> None:\n"
        "    for _ in range(100_000):\n"
        "        print('line')\n"
        "command(main)()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    line = f"'{sys.executable}' '{script}' | head -n 1"
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {line}"], capture_output=True, text=True, env=environment)
    assert done.stdout == "line\n" and done.stderr == "" and done.returncode == 1


def test_the_door_is_typers_own_command_line_otherwise() -> None:
    def main(name: Annotated[str, typer.Argument(help="Whose.")], number: int = 0) -> None:
        """Adds."""
        typer.echo(f"{name} {number + 1}")

    app = command(main)
    assert CliRunner().invoke(app, ["mine", "--number", "3"]).stdout == "mine 4\n"
    helped = CliRunner().invoke(app, ["--help"])
    assert (
        helped.exit_code == 0 and "Adds." in helped.stdout and "Whose." in helped.stdout and "--debug" in helped.stdout
    )


def _work() -> None:
    progress = Progress()
    with progress.stage("score", 2) as bar:
        bar.advance(2, 0, {})
    with ProgressBar("train", 1) as steps:
        steps.note("loss 0.7")
    progress.tell("starting a worker")
    tell("measuring")
    progress.say("warning: two rows failed")
    print(f"result {os.environ.get('PIPELINE_WORKER_LOGS')}")


def test_quiet_leaves_warnings_and_the_result() -> None:
    app = command(_work, progress=True)
    loud, quiet = CliRunner().invoke(app, []), CliRunner().invoke(app, ["--quiet"])
    for told in ("score: 2/2 rows", "loss 0.7", "starting a worker", "measuring"):
        assert told in loud.stderr and told not in quiet.stderr
    assert quiet.stderr == "warning: two rows failed\n" and quiet.stdout == loud.stdout == "result None\n"
    assert not is_quiet()


def test_verbose_shows_what_workers_write() -> None:
    app = command(_work, progress=True)
    assert CliRunner().invoke(app, ["--verbose"]).stdout == "result 1\n"
    both = CliRunner().invoke(app, ["--verbose", "--quiet"])
    assert both.exit_code == 2 and "give one of them" in both.stderr
    assert "No such option" in CliRunner().invoke(command(_work), ["--quiet"]).stderr


def test_runs_training_and_evaluation_can_be_quiet() -> None:
    for module in ("pipeline.run", "training.run", "training.evaluate"):
        text = CliRunner().invoke(importlib.import_module(module).app, ["--help"]).stdout
        assert "--quiet" in text and "--verbose" in text


@pytest.mark.parametrize("name", ["pipeline.py", "training.py", "reward/__init__.py"])
def test_a_file_that_is_called_as_a_package_of_ours_is_told(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert ended(UserError("mine")).stderr == "error: mine\n"
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text("")
    text = ended(UserError("mine")).stderr
    assert f"{tmp_path / name} is called as a package of vlm-preference" in text and "rename it" in text
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    assert ended(UserError("mine")).stderr == "error: mine\n"
