"""Remove what killed processes have left unfinished. Only who holds the lock of a folder may ask for it."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

from pipeline.base import files
from pipeline.base.files import OLD, PARTIAL, TEMPORARY, is_local

#: Folders in the system's own for temporary files begin so, and go on with the process that made them.
_PREFIX = "vlm-preference-"
_BY_PROCESS = re.compile(rf"{_PREFIX}\w+-(\d+)-")
_OF_PROCESS = re.compile(rf"\.(\d+)(?:{TEMPORARY}|{PARTIAL})$")


def sweep(folder: Path, swapped: Collection[str] = (), apart: Collection[str] = (), depth: int = 2) -> None:
    """Remove what is unfinished in ``folder`` and in the folders down to ``depth`` below it, but for those named in
    ``apart``, which have locks of their own. Of the folders named in ``swapped`` what stepped aside for one that never
    came is put back."""
    for name in files.names(folder):
        path = folder / name
        if name.startswith(".") and name.endswith(TEMPORARY):
            _remove(path)
        elif depth and name not in apart and path.is_dir():
            sweep(path, depth=depth - 1)
    for name in swapped:
        target = folder / name
        partial, old = (target.with_name(name + end) for end in (PARTIAL, OLD))
        if partial.exists():
            _remove(partial)
        if old.exists():
            _remove(old) if target.exists() else files.move(old, target)


def sweep_output(folder: Path) -> None:
    """``sweep`` of what ``training.run`` writes."""
    sweep(folder, swapped=("model", "adapter"), apart=("tensorboard", "wandb"))


def sweep_shared(folder: Path, begins: str = "") -> None:
    """The same in a folder that others may be writing into: of processes of this machine that are no more. Of other
    people's files there, ``begins`` keeps away: more dots may stand before it."""
    for name in files.names(folder):
        made_by = _OF_PROCESS.search(name)
        if made_by and name.lstrip(".").startswith(begins.lstrip(".")) and not _alive(int(made_by[1])):
            _remove(folder / name)


@contextlib.contextmanager
def beside(folder: Path, what: str) -> Iterator[Path]:
    """A folder for ``what`` beside another one, where processes on other machines find it as well. It is removed at
    the end, and where this process is killed, by the next one or by ``sweep_beside``."""
    if not is_local(folder):
        with temporary_folder(what) as elsewhere:
            yield Path(elsewhere)
        return
    sweep_beside(folder, what)
    place = folder.parent / f".{folder.name}.{what}.{os.getpid()}{TEMPORARY}"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def sweep_beside(folder: Path, what: str) -> None:
    """Remove what killed processes have left of ``beside``."""
    sweep_shared(folder.parent, f".{folder.name}.{what}.")


def temporary_folder(what: str) -> tempfile.TemporaryDirectory[str]:
    """A folder outside the run, that the next run removes if this process is killed."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        made_by = _BY_PROCESS.match(path.name)
        if made_by and not _alive(int(made_by[1])):
            shutil.rmtree(path, ignore_errors=True)  # somebody else's stays
    return tempfile.TemporaryDirectory(prefix=f"{_PREFIX}{what}-{os.getpid()}-")


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True) if is_local(path) else files.remove_tree(path)
    else:
        path.unlink(missing_ok=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
