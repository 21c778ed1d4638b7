"""How every command line ends: with its result, or with one short message that says what, where and the remedy.

The one place where errors leave the program. A message is bounded and holds no secret; ``--debug`` shows the traceback
before it, under the same rules. Exit codes: that of a ``UserError`` (2 unless it says otherwise), 1 for a fault of the
program itself, 130 when interrupted, 143 by SIGTERM, 129 by SIGHUP.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import errno
import functools
import importlib
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, NamedTuple, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from pipeline.base import secrets
from pipeline.base.ending import Ended, ended_by_signals
from pipeline.base.errors import LONGEST, ConfigError, UserError, shorten
from pipeline.base.progress import QUIET, VERBOSE

_QUIET = Annotated[bool, typer.Option("--quiet", help="Print only warnings, errors and the result.")]
_VERBOSE = Annotated[bool, typer.Option("--verbose", help="Print what workers write themselves, too.")]
_DEBUG = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
_LONGEST_TRACEBACK = 100_000
#: What this project imports from itself.
_PACKAGES = ("pipeline", "reward", "training", "vlm_preference")
_FULL = (errno.ENOSPC, errno.EDQUOT)
#: What a message may go on with in another line: one problem of several, and the remedy.
_GOES_ON = ("  - ", "  -> ")
#: What the operating system says where a library has put it into an error of its own kind.
_BY_TEXT = {os.strerror(code): code for code in (*_FULL, errno.EROFS)}


def command(main: Callable[..., None], named: tuple[type[Exception], ...] = (), progress: bool = False) -> typer.Typer:
    """``main`` as a command line with ``--debug``; ``named`` are errors that it means for the user beside
    ``UserError``. A parameter that is a dataclass stands for its fields: each is an option of its own. With
    ``progress`` there are ``--quiet`` and ``--verbose``, too."""
    signature = inspect.signature(main, eval_str=True)
    groups: dict[str, Any] = {
        name: parameter.annotation
        for name, parameter in signature.parameters.items()
        if dataclasses.is_dataclass(parameter.annotation)
    }

    def guarded(*args: Any, debug: bool, quiet: bool = False, verbose: bool = False, **options: Any) -> None:
        # Everything is caught here: further out, typer and click have their own ideas of some of these.
        try:
            with ended_by_signals(), _loudness(quiet, verbose):
                _refuse_namesakes()
                for name, group in groups.items():
                    options[name] = group(**{key.name: options.pop(key.name) for key in dataclasses.fields(group)})
                main(*args, **options)
            sys.stdout.flush()
        except (typer.Exit, typer.Abort, SystemExit):
            raise
        except BrokenPipeError:
            _unplug()
            raise typer.Exit(1) from None
        except BaseException as error:
            if _is_usage(error):
                raise
            text, code = message(error, named)
            if debug:
                _print(_fit("".join(traceback.format_exception(error)), _LONGEST_TRACEBACK))
            _print(text)
            raise typer.Exit(code) from None

    functools.update_wrapper(guarded, main)
    flags = {**({"quiet": _QUIET, "verbose": _VERBOSE} if progress else {}), "debug": _DEBUG}
    common = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind)
        for name, kind in flags.items()
    ]
    plain = [parameter for parameter in signature.parameters.values() if parameter.name not in groups]
    parameters = [*plain, *(field for group in groups.values() for field in _fields(group)), *common]
    guarded.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    guarded.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command(cls=_Command)(guarded)
    return app


def _refuse_namesakes() -> None:
    """Python looks into the working folder first, here and in the processes that a command starts."""
    ours = Path(__file__).parents[2]
    with contextlib.suppress(OSError):  # the folder may be gone
        here = Path.cwd()
        if os.environ.get("PYTHONSAFEPATH") or here == ours or (here / "pipeline" / "base").is_dir():  # or a clone
            return
        for name in _PACKAGES:
            for path in (here / f"{name}.py", here / name / "__init__.py"):
                if path.is_file():
                    raise ConfigError(
                        f"{path} is called as a package of vlm-preference, and would be imported in its place",
                        "rename it, or run the command in another folder",
                    )


@contextlib.contextmanager
def _loudness(quiet: bool, verbose: bool) -> Iterator[None]:
    """The environment, which is also that of processes that the command starts, says how much is told."""
    if quiet and verbose:
        raise ConfigError("--quiet and --verbose: give one of them")
    changes = QUIET if quiet else VERBOSE if verbose else {}
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name)
            os.environ.update({name: value} if value is not None else {})


def _fields(group: Any) -> Iterator[inspect.Parameter]:
    kinds = get_type_hints(group, include_extras=True)
    for field in dataclasses.fields(group):
        yield inspect.Parameter(
            field.name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=kinds[field.name]
        )


def message(error: BaseException, named: tuple[type[Exception], ...] = ()) -> tuple[str, int]:
    """What to say of an error, bounded and without secrets, and the exit code.

    >>> message(UserError("row 3: no image; give one"))
    ('error: row 3: no image; give one', 2)
    """
    if isinstance(error, Ended):
        return f"ended by {error}; the same command continues", error.exit_code
    if isinstance(error, KeyboardInterrupt):
        return "interrupted; the same command continues", 130
    text, code = _message(error, named)
    return f"error: {_in_lines(_fit(text, getattr(error, 'longest', LONGEST) - 10))}", code


def _in_lines(text: str) -> str:
    """Without the line breaks of library texts that stand in a message.

    >>> _in_lines("model x: cannot be loaded (no hub.\\n    Try again)\\n  -> give a folder")
    'model x: cannot be loaded (no hub. Try again)\\n  -> give a folder'
    """
    lines: list[str] = []
    for line in text.splitlines():
        if not lines or line.startswith(_GOES_ON):
            lines.append(line.rstrip())
        elif line.strip():
            lines[-1] = f"{lines[-1]} {line.strip()}"
    return "\n".join(lines)


def _fit(text: str, most: int = LONGEST - 10) -> str:
    # What is far beyond the limit is cut before it is looked through, well outside of what will be shown.
    return shorten(_printable(secrets.message(shorten(text, 4 * most))), most)


def _message(error: BaseException, named: tuple[type[Exception], ...]) -> tuple[str, int]:
    if isinstance(error, UserError):
        return str(error), error.exit_code
    # Disks run full under libraries that say so in errors of their own.
    for cause in _chain(error):
        if isinstance(cause, OSError) and cause.errno in (*_FULL, errno.EROFS):
            return _system(cause), 2
        words = str(cause)[:LONGEST].lower()
        code = next((code for text, code in _BY_TEXT.items() if text.lower() in words), None)
        if code is None and "inline_container" in words and "unexpected pos" in words:  # torch.save's whole account
            code = errno.ENOSPC
        if code is not None:
            return _system(OSError(code, os.strerror(code))), 2
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        first = _first_line(error)
        return f"out of memory{f' ({first})' if first else ''}\n  -> lower the batch size, or the workers", 2
    if isinstance(error, OSError):
        return _system(error) if error.errno is not None else _one_line(error), 2
    if isinstance(error, ImportError):
        return f"{_one_line(error)}\n  -> install it, or take what needs it out", 2
    if isinstance(error, named):
        return str(error) or type(error).__name__, 2
    return f"unexpected {type(error).__name__}: {_one_line(error)}\n  -> --debug shows the traceback", 1


def _system(error: OSError) -> str:
    place = str(error.filename) if error.filename is not None else ""
    at = f" {place}" if place else ""
    if error.errno in _FULL:
        return f"no space left while writing{at or ' a file'}\n  -> free some space and run the same command again"
    if error.errno == errno.EROFS:
        return f"cannot write{at or ' a file'}: the file system is read-only\n  -> choose another folder"
    remedy = {
        errno.ENOENT: "check the path",
        errno.EISDIR: "give a file",
        errno.ENOTDIR: "give a folder",
        errno.EEXIST: "choose another name",
        errno.EACCES: "check who may read and write it",
        errno.EPERM: "check who may read and write it",
    }.get(error.errno or 0, "check the disk and the network")
    return f"{place + ': ' if place else ''}{error.strerror or _one_line(error)}\n  -> {remedy}"


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    following: BaseException | None = error
    while following is not None and id(following) not in seen:
        seen.add(id(following))
        yield following
        following = following.__cause__ or following.__context__


def _one_line(error: BaseException) -> str:
    return " ".join(str(error)[: 2 * LONGEST].split()) or "no message"


def _first_line(error: BaseException) -> str:
    return next(iter(str(error)[:LONGEST].strip().splitlines()), "")


def _printable(text: str) -> str:
    """Without what a terminal would act on, or cannot show: control characters, halves of surrogate pairs."""
    text = text.encode("utf-8", "backslashreplace").decode()
    return "".join(c if c.isprintable() or c == "\n" else c.encode("unicode_escape").decode() for c in text)


class _TellsUsage:
    """Tells wrong arguments as every other error."""

    def main(self, *args: Any, **options: Any) -> Any:
        code: object = 1
        try:
            code = super().main(*args, **{**options, "standalone_mode": False})  # type: ignore[misc]
        except typer.Abort:
            pass
        except Exception as error:
            if not _is_usage(error):
                raise
            _print(f"error: {_fit(_usage(error))}")
            code = getattr(error, "exit_code", 2)
        sys.exit(code if isinstance(code, int) else 0)


class _Command(_TellsUsage, TyperCommand):
    """One command."""


class Lazy(NamedTuple):
    """A command by the module whose ``app`` it is, with the flags that it is always given, and its line in a list if
    that is another one."""

    module: str
    flags: tuple[str, ...] = ()
    about: str = ""


class CommandGroup(_TellsUsage, TyperGroup):
    """Several commands under one name. A module is imported when its command is asked for, or all are to be listed."""

    lazy: ClassVar[Mapping[str, Lazy]] = {}

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        return super().parse_args(ctx, args or ["--help"])

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.lazy)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in self.lazy:
            return None
        entry = self.lazy[cmd_name]
        module_command = typer.main.get_command(importlib.import_module(entry.module).app)
        module_command.name = cmd_name
        module_command.short_help = entry.about or module_command.short_help
        parse = module_command.parse_args
        module_command.parse_args = lambda ctx, args: parse(ctx, [*entry.flags, *args])  # type: ignore[method-assign]
        return module_command

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] not in self.lazy:
            close = difflib.get_close_matches(args[0], self.lazy, n=1)
            ctx.fail(f"there is no command {args[0]!r}{f', did you mean {close[0]}?' if close else ''}")
        return super().resolve_command(ctx, args)


def command_group(main: Callable[..., None], commands: type[CommandGroup]) -> typer.Typer:
    """``commands`` under one name, with shell completion; ``main`` has the options that stand before a command."""
    app = typer.Typer(cls=commands, pretty_exceptions_enable=False)
    app.callback()(main)
    return app


def _is_usage(error: BaseException) -> bool:
    """Whether it is click's, whose module is another one in some versions of typer."""
    return hasattr(error, "format_message") and hasattr(error, "exit_code")


def _usage(error: Any) -> str:
    ctx = getattr(error, "ctx", None)
    name = f"{ctx.command_path} " if ctx is not None else ""
    return f"{' '.join(error.format_message().split()).rstrip('.')}\n  -> {name}--help lists what may be given"


def _print(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # nobody reads it any more
        print(text, file=sys.stderr, flush=True)


def _unplug() -> None:
    """Whoever read the output has gone: what is still buffered must not be written at the end either."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
