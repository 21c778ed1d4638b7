"""Every block of README and docs: YAML is accepted by the real loader, Python is complete, commands know their options.

Those of docs/extending.md are executed in test_extending.py, and what docs/python.md shows in test_notebook.py.
"""

from __future__ import annotations

import ast
import builtins
import importlib
import json
import re
import shlex
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
import yaml
from PIL import Image

from pipeline.base import config_file
from pipeline.cli import Commands
from pipeline.recipe.recipe import Recipe
from pipeline.scoring.config import GROUPS
from training.config import TrainConfig, make_config
from training.config.recipe import WholeRecipe

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")),
         *sorted((ROOT / "examples").rglob("*.md"))]  # fmt: skip
#: What a block of a recipe stands in, where it does not bring its own.
RECIPE: dict[str, Any] = {
    "name": "x",
    "source": {"kind": "scenes"},
    "sample": {"model": "scenes-vlm"},
    "pair": {"weights": {"objects.hallucinated": -1}},
}
TRAINING = {"model": "scenes-vlm", "dataset": "runs/x/dataset", "output_dir": "runs/x/train"}
#: Pages whose plug-ins exist only while test_extending.py runs.
OF_PLUG_INS = {"extending.md"}


class Block(NamedTuple):
    place: str
    kind: str
    text: str


def _blocks() -> list[Block]:
    blocks = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in re.finditer(r"^```(\w*)\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
            line = text.count("\n", 0, match.start()) + 1
            blocks.append(Block(f"{page.name}:{line}", match[1], match[2]))
    return blocks


BLOCKS = _blocks()


def of_kind(kind: str) -> Any:
    blocks = [block for block in BLOCKS if block.kind == kind]
    return pytest.mark.parametrize("block", blocks, ids=[block.place for block in blocks])


@of_kind("yaml")
def test_a_block_of_yaml_is_accepted(block: Block) -> None:
    values = yaml.safe_load(block.text)
    if values is None:
        assert block.text.startswith("# yaml-language-server:")
        return
    if block.place.split(":")[0] in OF_PLUG_INS:
        assert isinstance(values, dict)
    elif values.keys() <= TrainConfig.model_fields.keys():
        make_config({**TRAINING, **values})
    else:
        if values.keys() <= set(GROUPS):
            values = {"score": {"scorers": list(values), **values}}
        config_file.make(WholeRecipe, _completed(values), what=block.place)


def _completed(values: dict[str, Any]) -> dict[str, Any]:
    """A recipe of the groups of a block. Weights without scorers, and scorers without weights, get some that fit."""
    assert values.keys() <= Recipe.model_fields.keys()
    whole = {**RECIPE, **values}
    weights = whole["pair"].get("weights", {})
    if "score" not in values:
        names = list(dict.fromkeys(name.split(".")[0] for name in [*weights, *whole["pair"].get("vetoes", {})]))
        whole["score"] = {"scorers": names or ["objects"]}
        for name in ("judge", "claims", "reward_model"):
            whole["score"] |= {name: {"model": "scenes-vlm"}} if name in names else {}
    elif "pair" not in values:
        whole["pair"] = {"weights": {_score_of(whole["score"]): 1}}
    if whole.get("publish", {}).get("style", {}).get("max_logp_gap") is not None:
        whole["score"]["scorers"] = [*whole["score"]["scorers"], "likelihood"]
    return whole


def _score_of(score: dict[str, Any]) -> str:
    first = score.get("scorers", ["objects"])[0]
    return {"correctness": "correctness", "given": "given"}.get(first, f"{first}.x")


@of_kind("json")
def test_a_block_of_json_can_be_read(block: Block) -> None:
    try:
        json.loads(block.text)
    except ValueError:
        assert [json.loads(line) for line in block.text.splitlines() if line.strip()]


@of_kind("python")
def test_a_block_of_python_is_complete(block: Block) -> None:
    tree = ast.parse(block.text)
    known = set(dir(builtins))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            known |= {alias.asname or alias.name.split(".")[0] for alias in node.names}
            _check_import(node)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            known.add(node.name)
        elif isinstance(node, ast.arg):
            known.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            known.add(node.id)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            known.add(node.name)
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    assert used - known == set()


def _executed(page: str) -> str:
    """The only block of Python of a page."""
    (block,) = (block for block in BLOCKS if block.kind == "python" and block.place.startswith(f"{page}:"))
    return block.text


def test_the_corruption_of_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (16, 16), "red").save("a.jpg")
    names: dict[str, Any] = {}
    exec(_executed("corruption.md"), names)
    assert names["rejected"].size == (16, 16) and list(names["rejected"].getdata()) != list(names["image"].getdata())


def test_the_scoring_of_answers_of_the_page_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "DIR" / "pope"
    folder.mkdir(parents=True)
    for split in ("random", "popular", "adversarial"):
        rows = [
            {
                "question_id": i,
                "image": f"COCO_val2014_{i:012}.jpg",
                "text": f"Is there a {name} in the image?",
                "label": label,
            }
            for i, (name, label) in enumerate([("dog", "yes"), ("cat", "no")], 1)
        ]
        (folder / f"coco_pope_{split}.json").write_text("".join(json.dumps(row) + "\n" for row in rows))
    exec(_executed("evaluation.md"), {})
    assert "yes_ratio" in capsys.readouterr().out


def _check_import(node: ast.Import | ast.ImportFrom) -> None:
    """That what is imported of ours is there."""
    names = [alias.name for alias in node.names]
    module = node.module if isinstance(node, ast.ImportFrom) else names[0]
    if module and module.split(".")[0] in ("pipeline", "reward", "training", "vlm_preference"):
        loaded = importlib.import_module(module)
        assert isinstance(node, ast.Import) or all(hasattr(loaded, name) for name in names)


def _commands() -> list[tuple[str, list[str]]]:
    lines = []
    for block in BLOCKS:
        for line in block.text.replace("\\\n", " ").splitlines() if block.kind in ("", "bash", "sh") else []:
            if re.match(r"\s*(\$ )?(\w+=\S+ )*(\S*bin/)?(python -m (pipeline|reward|training)|vlm-preference )", line):
                words = shlex.split(line.replace("$ ", "", 1), comments=True)
                lines.append((block.place, words))
    return lines


COMMANDS = _commands()


@pytest.mark.parametrize(("place", "words"), COMMANDS, ids=[f"{place}-{i}" for i, (place, _) in enumerate(COMMANDS)])
def test_a_command_knows_the_options_that_it_is_shown_with(place: str, words: list[str]) -> None:
    words = [word for word in words if "=" not in word or word.startswith("-")]
    at = words.index("-m") + 1 if "-m" in words else 1
    module = words[at] if "-m" in words else Commands.lazy[words[1]].module
    if (ROOT / module.replace(".", "/")).is_dir():
        module += ".__main__"
    app = importlib.import_module(module).app
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and (name := next((w for w in words if w in command.commands), None)):
        command = command.commands[name]
    options = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    shown = {word.split("=")[0] for word in words[at + 1 :] if word.startswith("--")}
    assert shown <= options | {"--help"}, place


def test_the_blocks_are_found() -> None:
    assert len(BLOCKS) > 100 and len(COMMANDS) > 30
