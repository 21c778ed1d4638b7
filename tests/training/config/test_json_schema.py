"""What describes the options is made from their fields, is current, and says what the loader says."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from pydantic import BaseModel
from typer.testing import CliRunner

from pipeline.base.config import Frozen
from pipeline.base.config_file import groups, make
from pipeline.base.errors import ConfigError
from pipeline.recipe.load import RECIPES, built_in, load_recipe
from training.config import TrainConfig, __main__
from training.config.json_schema import recipe_schema
from training.config.page import anchor, page
from training.config.recipe import WholeRecipe

VALIDATOR = Draft202012Validator(recipe_schema())
QUICKSTART = yaml.safe_load((RECIPES / "quickstart.yaml").read_text())


def undescribed(group: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in group.model_fields.items():
        if not field.description or not 3 < len(field.description) <= 220:
            yield f"{prefix}{name}"
        for member in groups(field).values():
            yield from undescribed(member, f"{prefix}{name}.")


@pytest.mark.parametrize("group", [WholeRecipe, TrainConfig])
def test_every_field_has_a_description(group: type[BaseModel]) -> None:
    assert list(undescribed(group)) == []


def test_a_field_without_a_description_would_be_found() -> None:
    class Silent(Frozen):
        said: int = 0

    class Outer(Frozen):
        inner: Silent = Silent()

    assert list(undescribed(Outer)) == ["inner", "inner.said"]


@pytest.mark.parametrize("path", __main__.texts(), ids=lambda path: path.name)
def test_what_is_generated_is_current(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == __main__.texts()[path], "run python -m training.config"


def test_what_is_not_current_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(__main__, "ROOT", tmp_path)
    for folder in ("docs", "pipeline"):
        (tmp_path / folder).mkdir()
    run = CliRunner().invoke
    assert run(__main__.app, []).exit_code == 0 and run(__main__.app, ["--check"]).exit_code == 0
    file = tmp_path / "docs" / "configuration.md"
    file.write_text(file.read_text().replace("`128`", "`129`"))
    done = run(__main__.app, ["--check"])
    assert done.exit_code == 2 and "docs/configuration.md is not current" in done.output


def test_every_link_of_the_page_leads_to_a_heading() -> None:
    text = page()
    headings = [anchor(title) for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
    assert len(set(headings)) == len(headings)
    assert set(re.findall(r"\]\(#(.*?)\)", text)) <= set(headings)


def tables(text: str) -> dict[str, dict[str, list[str]]]:
    """Heading -> key -> what it may be, its default, what it is."""
    sections = re.split(r"^#+ (.*)$", text, flags=re.MULTILINE)[1:]
    return {
        title: {
            key.rstrip(" †").strip("`"): cells for key, *cells in map(_cells, re.findall(r"^\| (`.*) \|$", body, re.M))
        }
        for title, body in zip(sections[::2], sections[1::2], strict=True)
    }


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.split(" | ")]


def missing(group: type[BaseModel], heading: str, more: str, shown: dict[str, dict[str, list[str]]]) -> Iterator[str]:
    """The keys of a group that have no whole row under its heading, or under ``more``."""
    rows = {**shown.get(f"`{heading}`", {}), **shown.get(more, {})}
    for name, field in group.model_fields.items():
        value, default, meaning = rows.get(name, ["", "", ""])
        if not ((value and default) or groups(field)) or meaning != (field.description or "").replace("|", "\\|"):
            yield f"{heading}.{name}"
        for member in groups(field).values():
            yield from missing(member, f"{heading}.{name}", "", shown)


FILE = "A file for `python -m training.run`"


def test_every_key_of_the_trainer_is_on_the_page_with_its_values_default_and_meaning() -> None:
    assert list(missing(TrainConfig, "train", FILE, tables(page()))) == []


def test_a_key_that_is_not_on_the_page_would_be_found() -> None:
    text = page()
    for key, row in (("epochs", "| `epochs` |"), ("lora.r", "| `r` |"), ("output_dir", "| `output_dir` † | path")):
        without = "\n".join(line for line in text.splitlines() if not line.startswith(row))
        assert list(missing(TrainConfig, "train", FILE, tables(without))) == [f"train.{key}"]


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(recipe_schema())


@pytest.mark.parametrize("name", built_in())
def test_every_recipe_of_ours_is_valid(name: str) -> None:
    values = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    assert [error.message for error in VALIDATOR.iter_errors(values)] == []
    written = load_recipe(name).model_dump(mode="json")
    assert [error.message for error in VALIDATOR.iter_errors(written)] == []


@pytest.mark.parametrize(
    "change",
    [
        {"sampel": {}},
        {"sample": {"model": "m", "n": 0}},
        {"sample": {"model": "m", "engine": {"kind": "vlm"}}},
        {"sample": {"models": [{"modle": "m"}]}},
        {"source": {"kind": "jsonl"}},
        {"source": {"kind": "folder", "path": "a", "split": "train"}},
        {"pair": {"weights": {"correctness": "much"}}},
        {"pair": {"vetoes": {"clip.cosine": {"abov": 1}}}},
        {"train": {"epochs": 0}},
        {"train": {"objective": "pdo"}},
        {"train": {"loss_type": ["sigmoid", "ippo"]}},
        {"score": {"scorers": ["objects", "clips"]}},
        {"train": {"corruption": {"kind": "krop"}}},
        {"train": {"corruption": {"steps": 1001}}},
        {"train": {"output_dir": "x"}},
        {"evaluate": {"scene": 5}},
        {"publish": {"style": {"max_auc": 0.4}}},
    ],
    ids=json.dumps,
)
def test_what_the_loader_refuses_is_not_valid_either(change: dict[str, Any]) -> None:
    values = {**QUICKSTART, **change}
    assert not VALIDATOR.is_valid(values)
    with pytest.raises(ConfigError):
        make(WholeRecipe, values)


def test_a_path_to_code_that_is_not_ours_is_valid_where_a_name_of_ours_is() -> None:
    path = "mylab.module:Name"
    change = {
        "score": {"scorers": ["objects", path], "options": {path: {"most": 3}}},
        "train": {"objective": path, "loss_type": [path], "corruption": {"kind": path}, "dataset_format": path},
        "pair": {"policy": path, "weights": {"objects.hallucinated": -1}},
    }
    assert VALIDATOR.is_valid({**QUICKSTART, **change})


def test_a_recipe_is_checked_whole_at_once() -> None:
    wrong = [
        "sample.n=0",
        "train.lerning_rate=1",
        "train.corruption.kind=krop",
        "evaluate.scenes=many",
        "train.dataset=x",
    ]
    with pytest.raises(ConfigError) as error:
        load_recipe("quickstart", wrong, WholeRecipe)
    text = error.value.message
    for fragment in (
        "the recipe has 5 problems",
        "sample.n: input should be greater than or equal to 1 (value 0)",
        "train.lerning_rate: unknown key (value 1); did you mean train.learning_rate?",
        "did you mean crop?",
        "evaluate.scenes: input should be a valid integer",
        "train.dataset: unknown key (value 'x'); remove it: a recipe trains on its own pairs",
    ):
        assert fragment in text


def test_what_is_checked_whole_is_kept_as_it_was_written() -> None:
    plain, whole = load_recipe("pds_dpo"), load_recipe("pds_dpo", (), WholeRecipe)
    assert whole.model_dump(mode="json") == plain.model_dump(mode="json")
    assert whole.train == plain.train and whole.evaluate == {"kind": "scenes", "scenes": 500}
