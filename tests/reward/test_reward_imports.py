"""Formulas stay cheap to import, and ``reward`` reaches for neither of the packages above it."""

import ast
import subprocess
import sys
from pathlib import Path

import reward

FOLDER = Path(reward.__file__).parent


def test_no_module_of_reward_imports_a_heavy_package_when_imported():
    modules = [f"reward.{path.stem}" for path in FOLDER.glob("*.py") if path.stem != "__init__"]
    heavy = ("torch", "ray", "vllm", "open_clip", "transformers", "pipeline", "training")
    code = f"import sys, {', '.join(modules)}; print([name for name in {heavy!r} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_reward_imports_neither_pipeline_nor_training_anywhere():
    for path in FOLDER.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            imported = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            imported += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in imported} & {"pipeline", "training"}, path
