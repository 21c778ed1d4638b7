"""The bytes behind an image of the prompts table: in the row, or in a file that the row names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def load(image: Mapping[str, Any]) -> bytes:
    """The encoded file of ``{"bytes": ..., "path": ...}``; bytes go first.

    Raises:
        OSError: the file is gone.
    """
    if image["bytes"] is not None:
        data: bytes = image["bytes"]
        return data
    return Path(image["path"]).read_bytes()
