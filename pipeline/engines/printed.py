"""What this process and its children print while something is opened, kept and passed on.

The core of an engine that serves several shards is a process of its own: why it could not start stands in what it
prints and nowhere else.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

#: Bytes that are kept, the last ones. A traceback of vLLM's takes about ten thousand, and is printed twice.
_KEPT = 200_000
#: Seconds to wait for what a process has printed just before it ended.
_LINGER = 2.0


class Printed:
    """State: the last of what was printed so far. Lines stay whole: a process that prints without a buffer writes them
    in parts, between which the other stream may come."""

    def __init__(self) -> None:
        self._kept = bytearray()
        self._begun: dict[int, bytes] = {}  # source -> the line that it has not ended
        self._lock = threading.Lock()
        self._readers: list[threading.Thread] = []

    def text(self) -> str:
        """To be asked when the context is left: what is still on its way then is waited for, for a moment."""
        for reader in self._readers:
            reader.join(_LINGER)
        with self._lock:
            return b"".join((self._kept, *self._begun.values())).decode("utf-8", "replace")

    def read(self, source: int, target: int) -> None:
        """Keep what comes out of ``source`` and pass it on, in a thread of its own."""
        self._readers.append(threading.Thread(target=self._pass_on, args=(source, target), name="printed", daemon=True))
        self._readers[-1].start()

    def _pass_on(self, source: int, target: int) -> None:
        with contextlib.suppress(OSError):
            while data := os.read(source, 65_536):
                self._keep(source, data)
                os.write(target, data)
        os.close(source)
        os.close(target)

    def _keep(self, source: int, data: bytes) -> None:
        with self._lock:
            whole, end, begun = (self._begun.get(source, b"") + data).rpartition(b"\n")
            self._kept += whole + end
            del self._kept[:-_KEPT]
            self._begun[source] = begun[-_KEPT:]


@contextlib.contextmanager
def printed() -> Iterator[Printed]:
    """Keep what is written to the file descriptors of standard output and standard error, which go on getting it. Child
    processes that are started meanwhile write the same way as long as they live; this process does so no more when the
    context is left."""
    kept = Printed()
    with contextlib.ExitStack() as stack:
        for descriptor in (1, 2):
            try:
                before = os.dup(descriptor)
            except OSError:  # closed, as in a daemon
                continue
            read, write = os.pipe()
            kept.read(read, os.dup(before))
            _flush()
            os.dup2(write, descriptor)
            os.close(write)
            stack.callback(_put_back, before, descriptor)
        yield kept


def _put_back(before: int, descriptor: int) -> None:
    _flush()
    os.dup2(before, descriptor)
    os.close(before)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, or another's
            stream.flush()
