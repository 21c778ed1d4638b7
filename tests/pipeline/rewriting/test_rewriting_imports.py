"""The package is pure: no engine, no table, nothing heavy; and its examples hold."""

from __future__ import annotations

import ast
import doctest
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import pipeline.rewriting

FOLDER = Path(pipeline.rewriting.__file__).parent
MODULES = sorted(path.stem for path in FOLDER.glob("*.py"))
HEAVY = "{'torch', 'ray', 'vllm', 'transformers', 'datasets', 'matplotlib'}"


@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name: str) -> None:
    module = pipeline.rewriting if name == "__init__" else importlib.import_module(f"pipeline.rewriting.{name}")
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_no_more_of_the_pipeline_than_the_world(name: str) -> None:
    tree = ast.parse((FOLDER / f"{name}.py").read_text(encoding="utf-8"))
    found = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    own = {one for one in found if one.startswith(("pipeline", "training"))}
    allowed = ("pipeline.rewriting", "pipeline.scenes")
    # One command line reads a run, the other puts scripted stages together.
    allowed += ("pipeline.store", "pipeline.errors") if name == "measure" else ()
    stages = ("pipeline.stages", "pipeline.config", "pipeline.engines", "pipeline.tables")
    allowed += stages if name == "judged" else ()
    assert all(one.startswith(allowed) for one in own), own


def test_nothing_heavy_is_loaded() -> None:
    names = ", ".join(f"pipeline.rewriting.{name}" for name in MODULES if name != "__init__")
    code = f"import sys, {names}; from pipeline.scenes.lexicon import scenes; scenes(); "
    code += f"print(sorted({HEAVY} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
