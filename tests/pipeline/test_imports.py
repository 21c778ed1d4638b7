"""Who may import what, and how long the command line takes to answer."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import help_kit
import pytest

ROOT = Path(__file__).parents[2]
FILES = {path: path.relative_to(ROOT).as_posix() for folder in ("pipeline", "reward", "training")
         for path in sorted((ROOT / folder).rglob("*.py"))}  # fmt: skip


def imported(path: Path) -> set[str]:
    """Every module named by an import statement, wherever in the file it stands."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.update({node.module, *(f"{node.module}.{alias.name}" for alias in node.names)})
    return names


def importers(package: str) -> set[str]:
    return {
        name
        for path, name in FILES.items()
        if any(one == package or one.startswith(f"{package}.") for one in imported(path))
    }


@pytest.mark.parametrize(
    ("package", "only"),
    [
        ("ray", "pipeline/pool.py"),
        ("vllm", "pipeline/engines/vllm.py pipeline/engines/vllm_rewards.py"),
        ("openai", "pipeline/engines/openai.py"),
        ("diffusers", "pipeline/engines/diffusion.py"),
    ],
)
def test_ray_and_the_engines_are_imported_in_their_own_files_alone(package: str, only: str) -> None:
    assert importers(package) == set(only.split())


def test_imports_go_one_way() -> None:
    assert not any(name.startswith("reward/") for name in importers("pipeline") | importers("training"))
    assert {name for name in importers("training") if name.startswith("pipeline/")} == {"pipeline/run.py"}
    assert importers("pipeline.run") == set()


@pytest.mark.parametrize(
    "module",
    [
        "pipeline.tables", "pipeline.config", "pipeline.stages.pair", "pipeline.stages.source", "pipeline.plan",
        "pipeline.run", "pipeline.preview", "pipeline.pool", "pipeline.engines.vllm", "pipeline.engines.openai",
    ],
)  # fmt: skip
def test_light_modules_load_nothing_heavy(module: str) -> None:
    heavy = "{'torch', 'ray', 'vllm', 'transformers', 'datasets', 'open_clip', 'matplotlib'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert found.stdout.strip() == "[]"


def test_help_answers_in_under_a_second() -> None:
    text, seconds = help_kit.told("pipeline.run")
    assert "--resume" in text and seconds < 1
