"""What a command line says of itself, and what that costs."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def told(module: str, tries: int = 3) -> tuple[str, float]:
    """What ``python -m module --help`` prints, and the fewest seconds of a processor that a try took: what else the
    machine does meanwhile is not its fault."""
    costs = []
    for _ in range(tries):
        before = _spent()
        command = [sys.executable, "-m", module, "--help"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
        costs.append(_spent() - before)
    return done.stdout, min(costs)


def _spent() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
