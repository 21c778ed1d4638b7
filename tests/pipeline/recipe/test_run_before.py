"""A run that was made before the files moved into rooms, by commit b4cf193, is found finished."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from pipeline.recipe.load import load_recipe
from pipeline.recipe.plan import Plan, generate
from pipeline.running.executor import Executor
from pipeline.running.store import Run

MADE = Path(__file__).parent / "run_before.tar.gz"


@pytest.fixture
def before(tmp_path: Path) -> Path:
    with tarfile.open(MADE) as tar:
        tar.extractall(tmp_path, filter="data")
    return tmp_path / "before"


def shards(run: Path) -> dict[str, tuple[bytes, int]]:
    """What is in every shard, and when it was written."""
    return {
        str(path.relative_to(run)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in sorted(run.rglob("data-*.arrow"))
    }


def carry_on(run: Path, *overrides: str) -> None:
    recipe = load_recipe(run / "recipe.yaml", [f"output_dir={run.parent}", *overrides])
    store = Run(run)
    with Executor(store) as executor:
        generate(Plan(recipe), store, executor, "if-possible")


def test_a_run_of_before_the_move_is_finished(before: Path) -> None:
    was = shards(before)
    carry_on(before)
    assert len(was) == 14 and shards(before) == was


def test_another_recipe_makes_it_anew(before: Path) -> None:
    was = shards(before)
    carry_on(before, "pair.margin=0.75")
    changed = {name for name, shard in shards(before).items() if was.get(name) != shard}
    assert changed == {"pair/data-00000.arrow", "pair/data-00001.arrow"}
