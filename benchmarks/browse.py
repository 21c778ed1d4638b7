"""How fast a run opens in ``pipeline.browse``, and how much memory that takes: a small run against a large one.

    python benchmarks/browse.py --prompts 1000 100000 --json OUT

Runs of scripted answers, eight to a prompt (as in orchestration.py), are made in a temporary folder. The server is a
process of its own, timed from its start, imports included, to the last byte of the first page; then some views are
asked for one after the other, none of which it has seen before.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import orchestration
import output
import yaml

VIEWS = {
    "filter": "?reason=identical",
    "search": "?q=purple+airplane",
    "sort": "?sort=objects.hallucinated",
    "range": "?score=objects.covered&low=2&side=chosen",
    "last page": "?page=4000",
}


def make_run(folder: Path, prompts: int) -> Path:
    orchestration.write_input(folder, prompts)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(orchestration.recipe(folder, 1000, 2), sort_keys=False))
    stages = "source,sample,score,pair"
    command = [sys.executable, "-m", "pipeline.run", str(folder / "recipe.yaml"), "--stages", stages]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return folder / "run"


def peak_mb(pid: int) -> float:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return round(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024, 1)


def fetch(address: str) -> float:
    """Seconds."""
    started = time.monotonic()
    with urllib.request.urlopen(address) as answer:
        answer.read()
    return round(time.monotonic() - started, 3)


def measure(run: Path) -> dict[str, Any]:
    started = time.monotonic()
    command = [sys.executable, "-m", "pipeline.browse", str(run), "--no-open", "--port", "0"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().strip()
        fetch(address)
        first = {"first_page_s": round(time.monotonic() - started, 2), "first_page_peak_mb": peak_mb(server.pid)}
        views = {f"{name}_s": fetch(address + query) for name, query in VIEWS.items()}
        return {**first, **views, "peak_mb": peak_mb(server.pid)}
    finally:
        server.terminate()
        server.wait()


def main() -> None:
    parser = output.parser(__doc__)
    parser.add_argument("--prompts", type=int, nargs="+", default=[1_000, 100_000])
    options = parser.parse_args()
    results: dict[str, Any] = {}
    for prompts in options.prompts:
        with tempfile.TemporaryDirectory(prefix="browse-") as name:
            run = make_run(Path(name), prompts)
            measure(run)  # once for the disk's cache and Python's
            results[str(prompts)] = measure(run)
    output.tell({"prompts": results, **output.MACHINE}, options.json)


if __name__ == "__main__":
    main()
