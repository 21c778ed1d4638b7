"""What every benchmark says in the end: its result as JSON, on the screen and in the file that ``--json`` names."""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

MACHINE: Mapping[str, Any] = {"cpus": os.cpu_count(), "machine": platform.machine()}
_STAT = Path("/proc/stat")


def parser(description: str | None) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--json", type=Path, metavar="OUT", help="write the result into this file as well")
    return made


def tell(result: Mapping[str, Any], path: Path | None) -> None:
    text = json.dumps({**result, "cpu_stolen": _stolen_share()}, indent=2)
    print(text)
    if path:
        path.write_text(text + "\n")


def _ticks() -> tuple[int, int]:
    """CPU time that other guests of the host had while this one had work to do, and that in all, since its start."""
    if not _STAT.exists():
        return 0, 0
    spent = [int(ticks) for ticks in _STAT.read_text().split("\n", 1)[0].split()[1:9]]
    return spent[7], sum(spent)


_BEFORE = _ticks()


def _stolen_share() -> float | None:
    """The share of CPU time since the start that a host of virtual machines kept from this one: a figure in seconds
    says nothing where it is large. None where nobody counts it."""
    stolen, total = (now - before for now, before in zip(_ticks(), _BEFORE, strict=True))
    return round(stolen / total, 3) if total else None
