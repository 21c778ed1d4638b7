"""Look at a run in a browser: ``python -m pipeline.browse runs/NAME``."""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.base.command import command

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.running.store import Run

PORT = 8765


def main(
    run: Annotated[str, typer.Argument(help="The directory of a run, finished or not.")],
    compare: Annotated[
        str | None, typer.Option(metavar="OTHER", help="A second run, shown beside the first, prompt by prompt.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help=f"Of the page; default: {PORT}, or a free one. 0: a free one.")
    ] = None,
    no_open: Annotated[bool, typer.Option("--no-open", help="Print the address, and open no browser.")] = False,
) -> None:
    """Show all prompts of a run in a browser: candidates, scores, pairs, and why there is none.

    The page is for this machine alone. Pairs can be accepted, rejected and swapped there; that is kept in marks.jsonl
    beside the run, and the next publishing obeys it.
    """
    import uvicorn

    from pipeline.browsing.app import app

    runs = tuple(_run(name) for name in (run, compare) if name is not None)
    _require_same_ids(runs)
    pages = app(runs)
    listener = _listen(port)
    address = f"http://127.0.0.1:{listener.getsockname()[1]}/"
    typer.echo(address)
    if not no_open and _has_screen():
        import webbrowser

        webbrowser.open(address)
    typer.echo("Ctrl-C ends it", err=True)
    server = uvicorn.Server(uvicorn.Config(pages, log_level="warning", lifespan="off", server_header=False))
    try:
        server.run(sockets=[listener])
    except KeyboardInterrupt:
        return


def _has_screen() -> bool:
    """Elsewhere a browser of the terminal would be opened, and waited for."""
    return sys.platform != "linux" or any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))


def _run(name: str) -> Run:
    from pipeline.base.errors import InputError
    from pipeline.running.store import Run

    opened = Run(name)
    if not opened.shards("source"):
        raise InputError(f"{name} has no source/data-*.arrow", _remedy(opened.path))
    return opened


def _remedy(path: Path) -> str:
    """What to give in place of a folder that is no run with prompts in it."""
    from difflib import get_close_matches

    if (path / "recipe.json").is_file():
        return "its prompts are not there yet: try again when its first stage has begun to write"
    if path.is_dir():
        runs = sorted({shard.parents[1] for shard in path.glob("*/source/data-*.arrow")})
        if runs:
            return f"give one of the runs in it, such as {runs[0]}"
    elif path.parent.is_dir() and (close := get_close_matches(path.name, os.listdir(path.parent), n=1)):
        return f"did you mean {path.parent / close[0]}?"
    return "give the directory of a run that has been started, such as runs/quickstart"


def _require_same_ids(runs: tuple[Run, ...]) -> None:
    from pipeline.base.errors import InputError

    schemas = [record.schema for run in runs if (record := run.record("source")) is not None]
    if len(set(schemas)) > 1:
        raise InputError(
            f"--compare: the tables of {runs[0].path} have schema {schemas[0]}, those of {runs[1].path} {schemas[1]}: "
            "their prompts have other ids, and none would be beside its like",
            "make the older one again with this version under another name, or look at each by itself",
        )


def _listen(port: int | None) -> socket.socket:
    """On this machine alone."""
    from pipeline.base.errors import ConfigError

    wanted = [PORT, 0] if port is None else [port]
    for number in wanted:
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", number))
            listener.listen()  # who comes before the server has started waits
            return listener
        except OSError as error:
            listener.close()
            failure = error
    raise ConfigError(f"--port {port}: {failure.strerror}", "give another, or leave it out")


app = command(main)

if __name__ == "__main__":
    app()
