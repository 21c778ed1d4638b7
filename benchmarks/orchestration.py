"""What the pipeline itself costs: all stages up to the published dataset with an engine that answers at once.

    python benchmarks/orchestration.py --prompts 100000 --json OUT

Eight candidates per prompt, objects and correctness as scorers, images referenced and not copied. The run is a process
of its own, timed from its start to its end, Ray and imports included; then the same command is given again, which must
find out that there is nothing to do.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import output
import yaml

from pipeline.scenes import raster
from pipeline.scenes.world import scene

TEXTS = [
    "The image shows a red sun in the middle and a blue cloud above it.",
    "There is a sun. There is also an anchor.",
    "A purple cloud, two stars and a brown airplane can be seen.",
    "There are two moons, and a sun below them. There is also a star.",
    "Yes.",
    "No.",
]


def write_input(folder: Path, prompts: int) -> None:
    """A jsonl file whose rows share one image file and differ in their text."""
    (folder / "image.png").write_bytes(raster.png(scene(0, 0)))
    objects = [{"name": "sun", "count": 1}, {"name": "cloud", "count": 1}]
    with (folder / "prompts.jsonl").open("w") as file:
        for i in range(prompts):
            row: dict[str, Any] = {"images": ["image.png"], "facts": {"objects": objects}}
            if i % 2:
                row |= {"prompt": f"Is there a sun in the image? ({i})", "answer": "yes"}
            else:
                row |= {"prompt": f"Describe the image. ({i})"}
            file.write(json.dumps(row) + "\n")


def recipe(folder: Path, shard_size: int, workers: int) -> dict[str, Any]:
    return {
        "name": "run",
        "output_dir": str(folder),
        "shard_size": shard_size,
        "source": {"kind": "jsonl", "path": str(folder / "prompts.jsonl")},
        "sample": {"model": "canned", "n": 8, "engine": {"kind": "scripted", "texts": TEXTS, "workers": workers}},
        "score": {"scorers": ["objects", "correctness"]},
        "pair": {
            "weights": {"objects.covered": 1, "objects.hallucinated": -1, "correctness": 1},
            "margin": 0.5,
            "max_length_ratio": 3,
        },
    }


def time_run(folder: Path) -> tuple[float, float]:
    """Seconds, and the driver's peak resident memory in MB (its workers and Ray's own processes not counted)."""
    command = [sys.executable, "-m", "pipeline.run", str(folder / "recipe.yaml")]
    started, peak = time.monotonic(), 0
    process = subprocess.Popen(command, env={**os.environ, "HF_HUB_OFFLINE": "1"})
    while process.poll() is None:
        peak = max(peak, _peak_kb(process.pid))
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(f"the run ended with status {process.returncode}")
    return time.monotonic() - started, peak / 1024


def _peak_kb(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("VmHWM")), 0)


def main() -> None:
    parser = output.parser(__doc__)
    parser.add_argument("--prompts", type=int, default=100_000)
    parser.add_argument("--shard-size", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="orchestration-") as name:
        folder = Path(name)
        write_input(folder, options.prompts)
        (folder / "recipe.yaml").write_text(
            yaml.safe_dump(recipe(folder, options.shard_size, options.workers), sort_keys=False)
        )
        seconds, peak = time_run(folder)
        stages = json.loads((folder / "run" / "summary.json").read_text())
        resumed, _ = time_run(folder)
    result = {
        "prompts": options.prompts,
        "candidates": 8 * options.prompts,
        "pairs": stages["pairs"],
        "seconds": round(seconds, 2),
        "prompts_per_s": round(options.prompts / seconds, 1),
        "stages_s": {stage: round(record["seconds"], 2) for stage, record in stages["stages"].items()},
        "driver_peak_mb": round(peak, 1),
        "resume_decision_s": round(resumed, 2),
        **output.MACHINE,
        "shard_size": options.shard_size,
    }
    output.tell(result, options.json)


if __name__ == "__main__":
    main()
