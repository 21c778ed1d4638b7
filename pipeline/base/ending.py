"""How a process ends when it is told to, and takes along what it has started.

SIGTERM and SIGHUP end a command as Ctrl-C does: everything that holds children, locks or temporary files is left in
order. A child of ours ends with its parent, even where that is killed and can do nothing more.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from types import FrameType

_SIGNALS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name))
#: Set for a child that is to end with its parent: the parent's process id.
_PARENT = "VLM_PREFERENCE_PARENT"
_PR_SET_PDEATHSIG = 1
#: Seconds that a child has to end in order.
PATIENCE = 20.0


class Ended(KeyboardInterrupt):
    """The process was told to end by a signal, named by ``str()``."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code = 128 + number


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Within it, SIGTERM and SIGHUP raise ``Ended`` in the main thread; a second one ends the process at once. A signal
    that is ignored (``nohup``) or handled by somebody stays so."""
    with_parent()
    signals = [number for number in _SIGNALS if signal.getsignal(number) is signal.SIG_DFL]
    told: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        for caught in signals:
            if signal.getsignal(caught) is end:
                signal.signal(caught, signal.SIG_DFL)
        told.append(number)
        raise Ended(number)

    try:
        for number in signals:
            signal.signal(number, end)
    except ValueError:  # not the main thread, which is nobody's to end
        signals = []
    try:
        yield
    except KeyboardInterrupt as error:
        # Ray Train makes a plain one of it, which says nothing of the signal.
        if told and not isinstance(error, Ended):
            raise Ended(told[0]) from error
        raise
    finally:
        for number in signals:
            signal.signal(number, signal.SIG_DFL)


@contextlib.contextmanager
def handlers_kept() -> Iterator[None]:
    """What happens on a signal is afterwards what it was before: some libraries set handlers of their own."""
    before = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            for number, handler in before.items():
                if handler is not None:
                    signal.signal(number, handler)


def run_child(command: Sequence[str], stdout: int | None = None) -> int:
    """Run a command of this project and return its exit status. However this process ends, the child ends with it; one
    of other people's unless this one is killed. ``stdout``: the descriptor it writes to; None for that of this process.
    """
    child = subprocess.Popen(command, env={**os.environ, _PARENT: str(os.getpid())}, stdout=stdout)
    try:
        return child.wait()
    except BaseException:
        child.terminate()
        try:
            child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        raise


def with_parent() -> None:
    """End with the process that started this one by ``run_child``, if one did."""
    parent = os.environ.pop(_PARENT, None)  # not for what this one starts
    if parent is None:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it was gone before
        os._exit(128 + signal.SIGTERM)
