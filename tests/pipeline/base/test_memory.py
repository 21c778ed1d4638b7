"""Memory that is free goes back to the operating system when it is asked to."""

from __future__ import annotations

import psutil

from pipeline.base import memory


def test_what_lies_free_below_something_in_use_goes_back() -> None:
    """Blocks too small to be mapped one by one; the last one keeps the C library from giving back those below it."""
    size = 64 << 10
    blocks = [bytearray(b"x" * size) for _ in range(2000)]
    last = blocks.pop()
    process = psutil.Process()
    held = process.memory_info().rss
    del blocks
    kept = process.memory_info().rss
    memory.release()
    assert process.memory_info().rss < held - 1000 * size < kept and len(last) == size
