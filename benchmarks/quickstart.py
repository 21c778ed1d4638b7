"""What the quickstart takes: seconds, and the peak memory of all its processes together.

    python benchmarks/quickstart.py --json OUT

Starts ``python -m pipeline.run`` in an empty folder. Memory is the proportional set size of the process and of all
below it, summed once a second; looking costs the run some time of its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import output
import psutil


def memory_gb(pid: int) -> float:
    total = 0
    with contextlib.suppress(psutil.Error):
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                total += process.memory_full_info().pss
    return total / 2**30


def main() -> None:
    options = output.parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory(prefix="quickstart-") as folder:
        command = [sys.executable, "-m", "pipeline.run", f"output_dir={folder}"]
        started, peak = time.monotonic(), 0.0
        process = subprocess.Popen(command, env={**os.environ, "HF_HUB_OFFLINE": "1"}, stdout=sys.stderr)
        while process.poll() is None:
            peak = max(peak, memory_gb(process.pid))
            time.sleep(1)
        if process.returncode:
            raise SystemExit(f"the run ended with status {process.returncode}")
        seconds = time.monotonic() - started
        summary = json.loads((Path(folder) / "quickstart" / "summary.json").read_text())
    result = {"seconds": round(seconds, 1), "peak_memory_gb": round(peak, 2), "pairs": summary["pairs"]}
    output.tell({**result, **output.MACHINE}, options.json)


if __name__ == "__main__":
    main()
