"""How well ``--plan --measure`` foretells a run: both back to back on this machine, stage by stage, as JSON.

    python benchmarks/foretold.py quickstart --output-dir /tmp/foretold [key=value ...]

``ratio`` is foretold / real. ``start`` is what it takes to open a model; a training's is part of its seconds.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from pipeline.recipe.load import load_recipe
from pipeline.recipe.plan import Plan
from pipeline.running.store import Run
from training import job
from training.config.recipe import WholeRecipe
from training.planning.show_plan import PROMPTS, foresee


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--prompts", type=int, default=PROMPTS)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    overrides = [*arguments.overrides, f"output_dir={arguments.output_dir}"]
    recipe = load_recipe(arguments.recipe, overrides, WholeRecipe)
    plan = Plan(recipe, job.evaluation_of(recipe))
    run, benchmarks = Run(recipe.run_dir), job.benchmarks_of(plan)
    outlooks = plan.outlook(run)
    outlooks += job.outlook(plan, run, benchmarks, stale=True)
    began = time.monotonic()
    estimates, _ = foresee(plan, run, outlooks, benchmarks, arguments.prompts)
    measuring = time.monotonic() - began
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", "pipeline.run", arguments.recipe, *overrides], check=True)
    wall = time.monotonic() - began
    stages = [_compared(estimate, run) for estimate in estimates]
    foretold = sum((stage["foretold"] or 0.0) for stage in stages)
    real = sum(stage["real"] for stage in stages)
    result = {
        "recipe": arguments.recipe,
        "overrides": arguments.overrides,
        "prompts": arguments.prompts,
        "measuring": round(measuring, 1),
        "stages": stages,
        "foretold": round(foretold, 1),
        "real": round(real, 1),
        "ratio": round(foretold / real, 3),
        "wall": round(wall, 1),
        "ratio_of_wall": round(foretold / wall, 3),
    }
    text = json.dumps(result, indent=2)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n", encoding="utf-8")


def _compared(estimate: Any, run: Run) -> dict[str, Any]:
    record = run.record(estimate.stage)
    assert record is not None
    known = estimate.seconds is not None and estimate.start is not None
    foretold = estimate.seconds + estimate.start if known else None
    return {
        "stage": estimate.stage,
        "rows": [estimate.rows, record.rows],
        "start": [estimate.start and round(estimate.start, 1), round(record.start, 1)],
        "foretold": foretold and round(foretold, 1),
        "real": round(record.seconds, 1),
    }


if __name__ == "__main__":
    main()
