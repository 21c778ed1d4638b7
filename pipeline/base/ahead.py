"""Files that are far away, several at a time: one after the other, most of the time is the way there and back."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from pipeline.base.files import is_local

Key = TypeVar("Key")
Value = TypeVar("Value")


def ahead(read: Callable[[Key], Value], keys: Iterable[Key], where: Path, most: int) -> Iterator[Value]:
    """``read(key)`` of every key, in their order. If ``where`` is no folder of this machine, ``most`` are read at a
    time, and as many are held that nobody has asked for yet.

    An exception of ``read`` is raised when it is its key's turn. Who stops early waits for those that are being read.
    """
    if is_local(where):
        yield from map(read, keys)
        return
    waiting: deque[Future[Value]] = deque()
    with ThreadPoolExecutor(most, thread_name_prefix="ahead") as threads:
        try:
            for key in keys:
                waiting.append(threads.submit(read, key))
                if len(waiting) == most:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
