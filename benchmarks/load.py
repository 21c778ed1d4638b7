"""What a training of a small model is slowed down by others on the same CPUs, in optimiser steps a second.

    python benchmarks/load.py --json OUT

Three loads: the training alone, beside a process that is always busy, and two trainings at once (the slower of them).
Each of several ways in which threads wait for each other: as ``pipeline.base.openmp`` has it, libgomp's own
(``GOMP_SPINCOUNT=300000``, the switch), never in a loop (``OMP_WAIT_POLICY=PASSIVE``), and one thread alone. Turns of
all ways follow each other, medians are reported. The pairs are those of the recipe ha_dpo.
"""

from __future__ import annotations

import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import output
import yaml

WAYS: Mapping[str, Mapping[str, str]] = {
    "watched": {},
    "libgomp": {"GOMP_SPINCOUNT": "300000"},
    "passive": {"OMP_WAIT_POLICY": "PASSIVE"},
    "one_thread": {"OMP_NUM_THREADS": "1"},
}
LOADS = ("idle", "one_busy", "two_at_once")
_SAID = {name for env in WAYS.values() for name in env}
_RATE = re.compile(r"([0-9.]+) step/s")


def main() -> None:
    options = output.parser(__doc__)
    options.add_argument("--ways", default=",".join(WAYS))
    options.add_argument("--turns", type=int, default=3)
    options.add_argument("--steps", type=int, default=60)
    options.add_argument("--scenes", type=int, default=150, help="images that the pairs are of")
    given = options.parse_args()
    ways = given.ways.split(",")
    with tempfile.TemporaryDirectory(prefix="load-") as folder:
        config = Path(folder) / "train.yaml"
        config.write_text(yaml.safe_dump(training(pairs(Path(folder), given.scenes), given.steps)))
        rates: dict[str, dict[str, list[float]]] = {way: {load: [] for load in LOADS} for way in ways}
        for _ in range(given.turns):
            for load in LOADS:
                for way in ways:
                    rates[way][load].append(rate(config, WAYS[way], load))
    result = {way: {load: round(statistics.median(each), 2) for load, each in rates[way].items()} for way in ways}
    turns = {"steps": given.steps, "turns": given.turns, "unit": "optimiser steps/s", "every": rates}
    output.tell({**result, **turns, **output.MACHINE}, given.json)


def pairs(folder: Path, scenes: int) -> Path:
    """The published dataset of a small run of the recipe."""
    stages = "source,sample,rewrite,score,pair,publish"
    keys = [f"source.scenes={scenes}", f"output_dir={folder}", "name=pairs"]
    command = [sys.executable, "-m", "pipeline.run", "ha_dpo", *keys, "--stages", stages]
    subprocess.run(command, check=True, stdout=sys.stderr, env=_env({}))
    return folder / "pairs" / "dataset"


def training(dataset: Path, steps: int) -> dict[str, object]:
    """As the recipe trains, and only so many steps."""
    from pipeline.recipe.load import load_recipe

    recipe = load_recipe("ha_dpo", [])
    options = {**(recipe.train or {}), "model": recipe.sample.model, "seed": 0, "max_steps": steps, "resume": "never"}
    return {"dataset": str(dataset), **options}


def rate(config: Path, env: Mapping[str, str], load: str) -> float:
    """Steps a second that the trainer says in its last line; of two trainings, the slower."""
    count = 2 if load == "two_at_once" else 1
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if load == "one_busy" else None
    try:
        trainings = [
            subprocess.Popen(
                [sys.executable, "-m", "training.run", str(config), f"output_dir={config.parent}/train-{number}"],
                env=_env(env),
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in range(count)
        ]
        texts = [process.communicate()[1] for process in trainings]
    finally:
        if busy is not None:
            busy.kill()
            busy.wait()
    for process, text in zip(trainings, texts, strict=True):
        if process.returncode:
            raise SystemExit(f"a training ended with status {process.returncode}: {text[-500:]}")
    return min(float(_RATE.findall(text)[-1]) for text in texts)


def _env(changes: Mapping[str, str]) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if key not in _SAID}
    return {**kept, "HF_HUB_OFFLINE": "1", **changes}


if __name__ == "__main__":
    main()
