"""A process that is stopped at the n-th change it makes on the disk.

Every change counts: a file opened for writing, renamed, linked, removed or synced, a folder made or removed, one by one
also those of ``rmtree``. Python tells of them by its audit events before they happen; what is written by C++ or Rust is
wrapped here, and ``unseen`` finds a writer that is neither. A run is made in a forked child, in which every module is
imported already, without Ray: what is sampled is scripted, what is trained is tiny.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

STOPPED = 77
#: What is longer hangs.
_SECONDS = 120
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
#: Audit event -> where its paths stand in its arguments, and the descriptors of the folders they are relative to.
_EVENTS = {
    "os.rename": ((0, 2), (1, 3)),
    "os.link": ((0, 2), (1, 3)),
    "os.remove": ((0, 1),),
    "os.rmdir": ((0, 1),),
    "os.mkdir": ((0, 2),),
    "os.truncate": ((0, None),),
    "os.symlink": ((1, 2),),
}


@dataclass(frozen=True)
class Change:
    """``what`` happens to ``paths``, the last of which is what it is called afterwards. ``unsynced`` are the files
    whose content the disk need not have by then, where they are now."""

    what: str
    paths: tuple[str, ...]
    unsynced: frozenset[str]


@dataclass
class Watch:
    """Counts the changes below ``root``, and stops the process before number ``stop``. ``power``: with the power, so
    that of what has been written to a file since it was synced only half is there.

    ``keep`` is a folder for what a stop before each change would leave, which is what is there at that moment: of every
    (point, power) in ``wanted``, or of all. ``left`` says which folder in ``keep`` that is; what is the same is kept
    once."""

    root: str
    stop: int = -1
    power: bool = False
    keep: Path | None = None
    wanted: frozenset[tuple[int, bool]] | None = None
    left: dict[tuple[int, bool], str] = field(default_factory=dict)
    changes: list[Change] = field(default_factory=list)
    #: How many bytes of a file are safe.
    unsynced: dict[str, int] = field(default_factory=dict)
    _quiet: bool = False

    def start(self) -> None:
        """Watch this process, for ever."""
        sys.addaudithook(self._hear)
        sync = os.fsync

        def fsync(handle: int) -> None:
            path = os.readlink(f"/proc/self/fd/{handle}")
            self.happens("fsync", path)
            sync(handle)
            self.unsynced.pop(path, None)

        os.fsync = fsync  # type: ignore[assignment]
        self._wrap_writers()

    def happens(self, what: str, *paths: str, safe: int = 0) -> None:
        """Called before the change. Of a file that is written to, ``safe`` bytes stay whatever comes."""
        paths = tuple(os.path.abspath(path) for path in paths)
        # TensorBoard writes in a thread of its own, and nothing reads what it wrote.
        if not any(path.startswith(self.root) for path in paths) or any("/tensorboard" in path for path in paths):
            return
        if self.keep is not None:
            self._keep(self.keep)
        if len(self.changes) == self.stop:
            if self.power:
                self._lose()
            os._exit(STOPPED)
        self.changes.append(Change(what, paths, frozenset(self.unsynced)))
        if what == "write":
            self.unsynced[paths[0]] = min(safe, self.unsynced.get(paths[0], safe))
        elif what == "os.remove":
            self.unsynced.pop(paths[0], None)
        elif what == "os.rename":
            old, new = paths
            moved = {path: safe for path, safe in self.unsynced.items() if _below(path, old)}
            stay = {path: safe for path, safe in self.unsynced.items() if path not in moved and path != new}
            self.unsynced = stay | {new + path[len(old) :]: safe for path, safe in moved.items()}

    def _hear(self, event: str, args: tuple[Any, ...]) -> None:
        if self._quiet:
            return
        if event == "open":
            path, _, flags = args
            if isinstance(path, str | bytes | os.PathLike) and flags & _WRITES:
                path = os.fsdecode(path)
                appends = flags & os.O_APPEND and not flags & os.O_TRUNC and os.path.isfile(path)
                self.happens("write", path, safe=os.path.getsize(path) if appends else 0)
        elif event in _EVENTS:
            places = (_place(args[path], args[base] if base is not None else -1) for path, base in _EVENTS[event])
            self.happens(event, *places)

    def _wrap_writers(self) -> None:
        """Those that open their files below Python."""
        import pyarrow as pa
        import safetensors.torch
        import torch

        def wrapped(write: Callable[..., Any], at: int) -> Callable[..., Any]:
            def call(*args: Any, **options: Any) -> Any:
                if isinstance(args[at], str | os.PathLike):
                    self.happens("write", os.fspath(args[at]))
                return write(*args, **options)

            return call

        save_file = safetensors.torch.save_file  # its own module is one of those whose name for it is replaced
        for module in list(sys.modules.values()):
            for name in ("save_file", "safe_save_file"):
                if getattr(module, name, None) is save_file:
                    setattr(module, name, wrapped(save_file, 1))
        torch.save = wrapped(torch.save, 1)
        opened = pa.OSFile

        def os_file(path: str, mode: str = "r", *rest: Any) -> Any:
            if "w" in mode:
                self.happens("write", path)
            return opened(path, mode, *rest)

        pa.OSFile = os_file

    def _keep(self, into: Path) -> None:
        self._quiet, root = True, Path(self.root)
        contents: dict[str, bytes] | None = None
        for power in (False, True):
            point = len(self.changes), power
            if self.wanted is not None and point not in self.wanted:
                continue
            if contents is None:
                folders = sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_dir())
                contents = {str(path.relative_to(root)): path.read_bytes() for path in files(root)}
            lost = {os.path.relpath(path, root): safe for path, safe in self.unsynced.items()} if power else {}
            left = {name: data[: _halved(len(data), lost.get(name, len(data)))] for name, data in contents.items()}
            self.left[point] = name = digest(folders, left)
            if not (into / name).exists():
                for folder in (".", *folders):
                    (into / name / folder).mkdir(parents=True, exist_ok=True)
                for path, data in left.items():
                    (into / name / path).write_bytes(data)
                    shutil.copystat(root / path, into / name / path)
        self._quiet = False

    def _lose(self) -> None:
        self._quiet = True
        for path, safe in self.unsynced.items():
            with contextlib.suppress(OSError):
                os.truncate(path, _halved(os.path.getsize(path), safe))


def _halved(size: int, safe: int) -> int:
    """What a power cut leaves of a file of which ``safe`` bytes are synced."""
    return safe + max(size - safe, 0) // 2


def _place(path: Any, base: int) -> str:
    if isinstance(path, int):
        return os.readlink(f"/proc/self/fd/{path}")
    path = os.fsdecode(path)
    return path if base in (-1, None) else os.path.join(os.readlink(f"/proc/self/fd/{base}"), path)


def child(work: Callable[[], object], log: Path) -> int:
    """Do ``work`` in a fork of this process; its exit status, ``STOPPED`` if it was stopped. What it says, and why it
    failed, is in ``log``."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 1
    try:
        signal.alarm(_SECONDS)
        handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(BaseException):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def quiet() -> None:
    """Make a run depend on nothing but its recipe, and stay in this process: no Ray, and no time passes."""
    from pipeline.publishing import plots
    from pipeline.recipe import plan
    from pipeline.running import executor
    from pipeline.running.pool import Done
    from pipeline.running.store import Run
    from training import job

    class Inline:
        def __init__(self, spec: Any, *_: Any) -> None:
            self.spec, self._model = spec, spec.open()

        def run(self, stage: Any, make: Any, path: Any, shards: Any, retries: int) -> Iterator[Done]:
            for shard in shards:
                yield Done(shard, make(stage, self._model, Run(path), shard))

        def close(self) -> None: ...

    clock = SimpleNamespace(monotonic=lambda: 0.0)
    executor.Pool, executor.start_ray = Inline, lambda: False  # type: ignore[assignment,misc]
    for module in (executor, plan, job):
        module.time = clock  # type: ignore[assignment]
    job.run_child = _train  # type: ignore[assignment]
    # Drawing takes longer than all the rest; what would be drawn is compared as it is.
    for name in ("outcomes", "before_after", "curves", "histograms", "lengths", "logp_gaps"):
        setattr(plots, name, lambda *values: f"<svg>{hashlib.sha256(repr(_plain(values)).encode()).hexdigest()}</svg>")
    plots.svg, plots.png = lambda drawn: drawn, lambda drawn: drawn.encode()  # type: ignore[assignment]


def _plain(value: Any) -> Any:
    """The values in it, whoever holds them."""
    from pipeline.publishing.value_counts import Tally

    if isinstance(value, Tally):
        return [value.values.tolist(), value.counts.tolist()]  # it sorts them when it is asked
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return [type(value).__name__, _plain(vars(value))] if hasattr(value, "__dict__") else value


def _train(command: Any) -> int:
    from training.config import load_config
    from training.loop.launch import run

    run(load_config(Path(command[-1]), []))
    return 0


def files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def tree(folder: Path) -> dict[str, str]:
    """The digest of every file."""
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files(folder)}


def digest(folders: list[str], contents: dict[str, bytes]) -> str:
    """Of all that lies somewhere: which folders there are, and what is in the files."""
    total = hashlib.sha256(repr(folders).encode())
    for name, data in sorted(contents.items()):
        total.update(f"{name}\0{len(data)}\0".encode() + data)
    return total.hexdigest()


def unfinished(folder: Path) -> list[str]:
    """What should not be there once a run has ended."""
    ends = (".tmp", ".partial", ".old", ".rewritten", ".lock")
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name.endswith(ends))


def unseen(folder: Path, changes: list[Change]) -> list[str]:
    """Files that nobody was seen to write."""
    written = {change.paths[-1] for change in changes if change.what in ("write", "os.link")}
    for change in changes:
        if change.what == "os.rename":
            old, new = change.paths
            written |= {new + path[len(old) :] for path in written if (path + "/").startswith(old + "/")}
    files = (path for path in folder.rglob("*") if path.is_file() and "/tensorboard" not in str(path))
    return sorted(str(path) for path in files if str(path) not in written)


def unsafe(changes: list[Change]) -> list[str]:
    """Renames of files that were not synced before, and whose folder was not synced behind it: a power cut can leave
    the new name with nothing in it, or the old one."""
    renames = []
    for at, change in enumerate(changes):
        if change.what != "os.rename":
            continue
        old, new = change.paths
        if any(part.endswith((".tmp", ".partial")) for part in Path(new).parts):
            continue  # to be renamed once more
        renames += [
            f"{path} is not synced before {old} -> {new}" for path in sorted(change.unsynced) if _below(path, old)
        ]
        folder = os.path.dirname(new)
        if not any(later.what == "fsync" and later.paths[0] == folder for later in changes[at:]):
            renames.append(f"{folder} is not synced after {old} -> {new}")
    return renames


def _below(path: str, folder: str) -> bool:
    return (path + "/").startswith(folder + "/")
