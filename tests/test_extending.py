"""What docs/extending.md shows runs as it is written, from a package that is not part of the project."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import help_kit
import pytest
import yaml

PAGE = (help_kit.ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
CODE = dict(re.findall(r"```python\n# (mylab/\w+\.py)\n(.*?)```", PAGE, re.DOTALL))
RECIPES = [yaml.safe_load(text) for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)]
POINTS = "".join(re.findall(r"```toml\n\[project.entry-points.\"(.*?)\"\]\n(.*?)```", PAGE, re.DOTALL)[0][1])
TEXTS = ["The image shows a sun.", "The image shows a sun and an anchor.", "Yes.", "No.", "a cup, a horse and a king"]
BASE: dict[str, Any] = {
    "name": "run",
    "shard_size": 4,
    "source": {"scenes": 6, "questions_per_scene": 1},
    "sample": {"model": "canned", "n": 4, "engine": {"kind": "scripted", "texts": TEXTS}},
    "pair": {"weights": {"objects.hallucinated": -1, "correctness": 1}, "margin": 0.05, "max_length_ratio": 9},
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages with the page's one in it, as an installer leaves it."""
    folder = tmp_path_factory.mktemp("site")
    for name, text in CODE.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    about = folder / "mylab-0.1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: mylab\nVersion: 0.1\n")
    (about / "entry_points.txt").write_text(f"[vlm_preference.scorers]\n{POINTS.replace(chr(34), '')}")
    return folder


def run(installed: Path, folder: Path, recipe: dict[str, Any], *words: str) -> subprocess.CompletedProcess[str]:
    (folder / "recipe.yaml").write_text(yaml.safe_dump({**BASE, "output_dir": str(folder), **recipe}))
    command = [sys.executable, "-m", "pipeline.run", str(folder / "recipe.yaml"), *words]
    path = os.pathsep.join([str(installed), str(help_kit.ROOT)])
    env = {**os.environ, "PYTHONPATH": path, "RAY_ADDRESS": "local"}
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=env)


def merged(recipe: dict[str, Any]) -> dict[str, Any]:
    pair = {**BASE["pair"], **recipe.get("pair", {})}
    return {**recipe, "pair": {**pair, "margin": 0.05}}


def test_every_example_is_short() -> None:
    assert len(CODE) == 2 and all(len(text.splitlines()) <= 40 for text in CODE.values())


@pytest.mark.parametrize("number", range(len(RECIPES)))
def test_an_example_runs(installed: Path, tmp_path: Path, number: int) -> None:
    done = run(installed, tmp_path, merged(RECIPES[number]), "--stages", "source,sample,score,pair,publish")
    assert done.returncode == 0, done.stderr
    said = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert said["pairs"] > 0
    card = (tmp_path / "run" / "dataset" / "README.md").read_text()
    assert "mylab" in card
    if "score" in RECIPES[number]:
        record = json.loads((tmp_path / "run" / "score" / "stage.json").read_text())
        assert record["options"]["scorers.brevity"].startswith("mylab.brevity:Brevity@1")
        assert '"most_words": 20' in record["options"]["scorers.brevity"]


def test_a_name_that_a_package_offers_is_as_good_as_a_path(installed: Path, tmp_path: Path) -> None:
    recipe = {"score": {"scorers": ["objects", "correctness", "brevity"]}}
    done = run(installed, tmp_path, recipe, "--stages", "source,sample,score")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "score" / "stage.json").read_text())
    assert record["options"]["scorers.brevity"].startswith("brevity@1")


@pytest.mark.parametrize(
    ("recipe", "said"),
    [
        ({"score": {"scorers": ["mylab.brevty:Brevity"]}}, "no module mylab.brevty; did you mean mylab.brevity?"),
        ({"score": {"scorers": ["mylab.brevity:Brevty"]}}, "mylab.brevity has no 'Brevty'; did you mean Brevity?"),
        ({"score": {"scorers": ["brevty"]}}, "'brevty' is none of the scorers; did you mean brevity?"),
        ({"score": {"scorers": ["objcts"]}}, "'objcts' is none of the scorers; did you mean objects?"),
        (
            {"score": {"scorers": ["mylab.brevity:Brevity"], "options": {"mylab.brevity:Brevity": {"most_word": 3}}}},
            "has no option 'most_word'; did you mean most_words?",
        ),
        (
            {"score": {"scorers": ["mylab.brevity:Brevity"], "options": {"mylab.brevity:Brevity": {"most_words": []}}}},
            "option most_words: Input should be a valid integer",
        ),
        ({"pair": {**BASE["pair"], "policy": "mylab.nearest:Neerest"}}, "has no 'Neerest'; did you mean Nearest?"),
        ({"pair": {**BASE["pair"], "policy": "top_kk"}}, "'top_kk' is none of the policies; did you mean top_k?"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(installed: Path, tmp_path: Path, recipe: dict[str, Any], said: str) -> None:
    if "score" in recipe:
        recipe = {**recipe, "pair": {**BASE["pair"], "weights": {"objects.hallucinated": -1}}}
        recipe["score"]["scorers"] = ["objects", *(one for one in recipe["score"]["scorers"])]
    done = run(installed, tmp_path, recipe, "--plan")
    assert done.returncode == 2 and said in done.stderr and "Traceback" not in done.stderr
