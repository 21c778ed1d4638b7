"""``vlm_preference``, the interface for Python: the notebook is executed cell by cell, as a notebook would."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

import vlm_preference as vp
from pipeline.base.errors import ConfigError, InputError, PipelineError

ROOT = Path(__file__).parents[1]
NOTEBOOK = json.loads((ROOT / "examples" / "notebook.ipynb").read_text())


def execute(source: str, names: dict[str, Any]) -> Any:
    """Run a cell and return the value of its last expression."""
    *before, last = ast.parse(source).body
    exec(compile(ast.Module(before, []), "cell", "exec"), names)
    if isinstance(last, ast.Expr):
        return eval(compile(ast.Expression(last.value), "cell", "eval"), names)
    exec(compile(ast.Module([last], []), "cell", "exec"), names)
    return None


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    names: dict[str, Any] = {}
    cells = ["".join(cell["source"]) for cell in NOTEBOOK["cells"] if cell["cell_type"] == "code"]
    values = [execute(cell, names) for cell in cells]
    assert values[1] > 0 and values[2].size[0] > 0 and values[3] > 0
    assert (tmp_path / values[4] / "config.json").is_file() and values[5]
    page = (ROOT / "docs" / "python.md").read_text()
    assert all(f"vp.{name}" in page and callable(getattr(vp, name)) for name in vp.__all__)


def test_the_notebook_is_kept_without_outputs() -> None:
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in NOTEBOOK["cells"])


def test_what_is_wrong_is_an_error_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="did you mean"):
        vp.load_recipe("quickstart", "sample.temprature=1")
    with pytest.raises(InputError, match="no published dataset"):
        next(vp.pairs(tmp_path))
    with pytest.raises(InputError, match=r"has no summary\.json"):
        vp.summary(tmp_path)
    with pytest.raises(TypeError, match="load_recipe"):
        vp.run(vp.load_recipe("quickstart"), "sample.n=2")
    monkeypatch.setattr("pipeline.base.ending.run_child", lambda command: 2)
    with pytest.raises(PipelineError, match=r"training\.run ended with status 2"):
        vp.train(tmp_path, "scenes-vlm", tmp_path / "out")


def test_values_of_a_mapping_are_those_that_python_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path was `cannot represent an object`, in a traceback."""
    import numpy as np

    groups = {
        "source": {"kind": "jsonl", "path": Path("a") / "b.jsonl", "prompts": ("Why?",)},
        "sample": {"model": "scenes-vlm", "n": np.int64(4), "temperature": np.float32(0.5)},
        "pair": {"weights": {"correctness": 1}},
    }
    recipe = vp.load_recipe(groups)
    assert (recipe.source.path, recipe.source.prompts) == ("a/b.jsonl", ("Why?",))
    assert (recipe.sample.n, recipe.sample.temperature) == (4, 0.5)
    with pytest.raises(ConfigError, match=r"object object at .* is no value of an option"):
        vp.load_recipe({**groups, "name": object()})

    calls: list[list[str]] = []
    monkeypatch.setattr("pipeline.base.ending.run_child", lambda command: calls.append(command) or 0)
    vp.train(tmp_path, "scenes-vlm", tmp_path / "out", image_root=Path("here"))
    assert "image_root: here" in (tmp_path / "out" / "config.yaml").read_text()


def test_a_list_is_all_of_it_or_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of `suite=["pope", "chair"]` the last one alone was measured."""
    calls: list[list[str]] = []
    monkeypatch.setattr("pipeline.base.ending.run_child", lambda command: calls.append(command) or 0)
    (tmp_path / "results.json").write_text("{}")
    vp.evaluate("scenes-vlm", tmp_path, suite=["pope", "chair"], engine=["a=1", "b=2"])
    assert calls[-1][-8:] == ["--suite", "pope,chair", "--engine", "a=1", "--engine", "b=2", "--output", str(tmp_path)]
    with pytest.raises(TypeError, match=r"prompt=.* give one value"):
        vp.evaluate("scenes-vlm", tmp_path, prompt=["What?", "Why?"])

    for stages in ("score,pair", ["score", "pair"]):
        vp.run("quickstart", stages=stages)
        assert calls[-1][calls[-1].index("--stages") + 1] == "score,pair"
