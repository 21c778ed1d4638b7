"""Give memory back that nothing uses any more.

Arrow's pool and the C library keep what a stage has freed, each for its own next use. A driver that runs many stages
would carry the highest point of every one of them to the next.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable

import pyarrow as pa


def release() -> None:
    """Return free memory to the operating system, as far as it can be asked to take it."""
    pa.default_memory_pool().release_unused()
    _trim()(0)


@functools.cache
def _trim() -> Callable[[int], int]:
    """glibc's ``malloc_trim``; nothing where there is another C library."""
    try:
        trim: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):
        return lambda kept: 0
    return trim
