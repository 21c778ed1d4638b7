"""One process at a time writes into a folder: ``with locked(folder, command): ...``.

The lock is the kernel's (``flock`` on ``FOLDER/.lock``): it ends with its holder, however that ends, so nobody has to
remove it. What stands in the file is for people: who holds it. Where a file system knows no ``flock``, files named by
their holders are the lock; one that is dead on this machine is told by its process id and the time it started.

Network file systems pass ``flock`` on to the server unless they are mounted with ``nolock`` or ``local_lock``; there,
as on object stores, nothing keeps two machines apart.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import random
import socket
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.base.errors import StoreError
from pipeline.base.files import disk_error, is_local

NAME = ".lock"
#: What a file system answers that has no ``flock``.
_UNKNOWN = frozenset({errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK})
#: How often to look for others where the file system does not lock.
_TRIES = 5
_BY_HAND = "wait for it or end it; if it is dead, remove {}"
#: Of this process. A fork must not go on holding what its parent holds.
_held: set[int] = set()


class InUse(StoreError):
    """Another process writes into the folder."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lock. ``started`` tells a process from a later one with the same number: ticks since the machine was
    started, 0 where the system does not say; ``boot`` is that start."""

    what: str
    host: str
    pid: int
    started: int
    boot: str
    since: str

    def __str__(self) -> str:
        return f"`{self.what}`, process {self.pid} on {self.host} since {self.since}"

    @property
    def dead(self) -> bool:
        """Whether it is known to be: of other machines nothing is."""
        if self.host != socket.gethostname():
            return False
        if self.boot != _boot():
            return True
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:  # it lives, and is somebody else's
            pass
        return _start_time(self.pid) != self.started


@contextlib.contextmanager
def locked(folder: Path, what: str) -> Iterator[None]:
    """Hold ``folder`` (made if it is not there) while the block runs; ``what`` is the command that others are told.

    On an object store this does nothing. Holding a folder does not hold the folders in it.

    Raises:
        InUse: another process holds it, or this one does already.
        StoreError: the folder cannot be written.
    """
    if not is_local(folder):
        yield
        return
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        taken = _take(path, _me(what))
    except OSError as error:
        raise disk_error(path, error) from error
    if isinstance(taken, int):
        _held.add(taken)
    try:
        yield
    finally:
        if isinstance(taken, Path):
            taken.unlink(missing_ok=True)
        else:
            # Removed while it is held: who opens it meanwhile sees that the name is gone, and makes a new one.
            if _is(path, taken):
                path.unlink(missing_ok=True)
            _held.discard(taken)
            os.close(taken)


def _take(path: Path, me: Holder) -> int | Path:
    """The open file that is locked, or the file that stands for the lock."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            raise _in_use(path, "wait for it or end it, or use another folder") from None
        except OSError as error:
            os.close(handle)
            if error.errno not in _UNKNOWN:
                raise
            return _take_by_name(path, me)
        if _is(path, handle):
            os.ftruncate(handle, 0)
            os.pwrite(handle, _text(me), 0)
            return handle
        os.close(handle)  # its last holder has removed it meanwhile


def _take_by_name(path: Path, me: Holder) -> Path:
    """Whoever finds its own name alone holds the lock: of two that come at once, at least one sees the other."""
    mine = path.with_name(f"{NAME}.{me.host}.{me.pid}.{me.started}")
    path.unlink(missing_ok=True)  # made by the try to lock it
    for _ in range(_TRIES):
        if mine.exists():
            raise _in_use(mine, _BY_HAND.format(mine))
        mine.with_suffix(".new").write_bytes(_text(me))
        mine.with_suffix(".new").rename(mine)
        others = [other for other in path.parent.glob(f"{NAME}.*") if other != mine and other.suffix != ".new"]
        dead = [other for other in others if (holder := _read(other)) is not None and holder.dead]
        if len(dead) == len(others):
            for other in dead:
                other.unlink(missing_ok=True)
            return mine
        mine.unlink()
        time.sleep(random.uniform(0, 0.05))  # the other one may have given way, too
    lives = next(other for other in others if other not in dead)
    raise _in_use(lives, _BY_HAND.format(lives))


def _in_use(path: Path, remedy: str) -> InUse:
    holder = _read(path)
    for _ in range(20):  # it may hold the lock and not have said yet who it is
        if holder is not None:
            break
        time.sleep(0.01)
        holder = _read(path)
    return InUse(f"{path.parent} is in use by {holder or 'another process'}", remedy)


def _read(path: Path) -> Holder | None:
    try:
        return Holder(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _text(holder: Holder) -> bytes:
    return (json.dumps(asdict(holder)) + "\n").encode()


def _is(path: Path, handle: int) -> bool:
    """Whether ``path`` still names the open file."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False


def _me(what: str) -> Holder:
    pid = os.getpid()
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    return Holder(what, socket.gethostname(), pid, _start_time(pid), _boot(), since)


def _start_time(pid: int) -> int:
    try:
        # The name of the command, in parentheses, may hold anything; after it the fields are numbers.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return 0


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _after_fork() -> None:
    for handle in _held:
        with contextlib.suppress(OSError):
            os.close(handle)
    _held.clear()


os.register_at_fork(after_in_child=_after_fork)
