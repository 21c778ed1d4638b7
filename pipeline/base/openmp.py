"""Threads that wait for each other let others have the CPU.

torch splits an operator over threads, which wait for each other at its end. libgomp, torch's OpenMP on Linux, lets them
turn in a loop for some milliseconds before they sleep: on an idle machine they go on at once, on a busy one the loop
keeps the core that the awaited thread needs. Two trainings of a small model at once, on 2 cores, are each 28 times
slower than one alone. ``OMP_WAIT_POLICY=PASSIVE`` mends that, and makes a training that is alone a third slower.

libgomp waits in a short loop where a process has more OpenMP threads than there are CPUs. So while this process's
threads have to wait for a CPU, a second team of threads is kept, asleep. No operator is computed by other threads or in
another order: results do not change. Imports no torch; where it is not libgomp that torch runs with, nothing happens.
"""

from __future__ import annotations

import contextlib
import glob
import os
import sys
import threading
import time
from collections.abc import Iterator

#: A user who says how threads wait is obeyed. ``GOMP_SPINCOUNT=300000`` is libgomp's own default, and the switch.
SAID = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
#: Seconds between two looks at how long threads have waited for a CPU.
LOOK_EVERY = 0.25
#: Share of a look's time, added up over all threads, in which they wait for a CPU on a machine that is busy: beside one
#: busy process half of the time, of two trainings at once each for twice that long. Below it, looping is still faster.
BUSY = 0.35
#: Looks in a row that must find the machine idle before threads wait in a long loop again.
CALM = 4
#: Elements of a tensor that torch splits over threads.
_SPLIT = 1 << 17
_WAITED = "/proc/self/task/*/schedstat"


@contextlib.contextmanager
def sharing_cpus() -> Iterator[None]:
    """Inside, threads of torch wait for each other in a short loop while the machine is busy."""
    if any(name in os.environ for name in SAID) or not glob.glob(_WAITED):
        yield
        return
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(over,), name="cpus", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _watch(over: threading.Event) -> None:
    team, calm = SecondTeam(), 0
    before, looked = waited(), time.monotonic()
    try:
        while not over.wait(LOOK_EVERY):
            now, at = waited(), time.monotonic()
            busy = now - before > BUSY * (at - looked)
            before, looked, calm = now, at, 0 if busy else calm + 1
            if busy and _can_split():
                team.keep()
            elif calm >= CALM:
                team.leave()
    finally:
        team.leave()


def waited() -> float:
    """Seconds for which the threads of this process were ready to run and had no CPU."""
    total = 0
    for path in glob.glob(_WAITED):
        with contextlib.suppress(OSError, IndexError, ValueError), open(path) as file:  # a thread may have ended
            total += int(file.read().split()[1])
    return total / 1e9


def _can_split() -> bool:
    # Whoever has not imported torch by now has nothing to wait for, and need not import it for this.
    torch = sys.modules.get("torch")
    threads = getattr(torch, "get_num_threads", None)  # missing while torch is being imported
    return threads is not None and threads() > 1


class SecondTeam:
    """OpenMP's threads belong to the thread that has split an operator, as long as that lives."""

    def __init__(self) -> None:
        self._over: threading.Event | None = None
        self._thread: threading.Thread | None = None

    @property
    def kept(self) -> bool:
        return self._thread is not None

    def keep(self) -> None:
        """Have a second team; returns when it sleeps."""
        if self._thread is not None:
            return
        self._over, made = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold, args=(made, self._over), name="second team", daemon=True)
        self._thread.start()
        made.wait()

    def leave(self) -> None:
        """Have none."""
        if self._thread is None or self._over is None:
            return
        self._over.set()
        self._thread.join()
        self._over = self._thread = None

    @staticmethod
    def _hold(made: threading.Event, over: threading.Event) -> None:
        try:
            import torch

            torch.zeros(_SPLIT).add_(1.0)
        finally:
            made.set()
        over.wait()
