"""JSON that is written item by item."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


def write_list(path: Path, items: Iterable[Any]) -> None:
    """A list, for readers that want the file to be one value."""
    with path.open("wb") as file:
        file.write(b"[")
        for number, item in enumerate(items):
            file.write(f"{',' if number else ''}\n{json.dumps(item, ensure_ascii=False, indent=2)}".encode())
        file.write(b"\n]\n")


def write_lines(path: Path, items: Iterable[Any]) -> None:
    """One item a line."""
    with path.open("wb") as file:
        for item in items:
            file.write(f"{json.dumps(item, ensure_ascii=False)}\n".encode())
