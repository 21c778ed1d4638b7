from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from pipeline.base import config_file, other_names
from pipeline.base.command import message
from pipeline.base.config import flatten
from pipeline.base.errors import ConfigError
from pipeline.recipe.load import built_in, load_recipe, make_recipe
from pipeline.recipe.recipe import Recipe
from training.config.recipe import WholeRecipe

MINIMAL = {"name": "x", "source": {"scenes": 3}, "sample": {"model": "m"}, "pair": {"weights": {"correctness": 1}}}


def problems(error: pytest.ExceptionInfo[ConfigError]) -> str:
    return error.value.message


@pytest.mark.parametrize("name", built_in())
def test_every_built_in_recipe_loads(name: str) -> None:
    assert load_recipe(name).name


def test_overrides_are_yaml_values_and_reach_into_groups() -> None:
    recipe = load_recipe("quickstart", ["sample.n=4", "sample.stop=[a, b]", "sample.revision=null", "train=null"])
    assert (recipe.sample.n, recipe.sample.stop, recipe.sample.revision, recipe.train) == (4, ("a", "b"), None, None)


def test_a_place_may_be_below_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    given = ["output_dir=~/runs", "source={kind: jsonl, path: ~/a.jsonl}", "sample.chat_template=~/t.jinja"]
    recipe = load_recipe("quickstart", [*given, "sample.system_prompt=~/no place"])
    assert recipe.run_dir == Path("/home/me/runs/quickstart") and recipe.source.path == "/home/me/a.jsonl"
    assert recipe.sample.chat_template == Path("/home/me/t.jinja")
    assert recipe.sample.system_prompt == "~/no place"


def test_a_weight_keeps_the_dots_of_its_score() -> None:
    recipe = load_recipe("quickstart", ["pair.weights.clip.cosine=2"])
    assert recipe.pair.weights["clip.cosine"] == 2


def test_options_are_reached_by_the_names_of_others_with_dots() -> None:
    path = "mylab.brevity:Brevity"
    values = {"pair": {"vetoes": {"clip.cosine": {"above": 1}}}}
    changes = [f"score.options.{path}.most_words=20", "pair.vetoes.clip.cosine.below=0", "pair.options.a.b=1"]
    for change in changes:
        values = config_file._override(Recipe, values, change)
    assert values == {
        "score": {"options": {path: {"most_words": 20}}},
        "pair": {"vetoes": {"clip.cosine": {"above": 1, "below": 0}}, "options": {"a": {"b": 1}}},
    }


def test_all_errors_at_once_each_with_key_value_and_remedy() -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe("quickstart", ["sample.temprature=2", "sample.n=0", "source.kind=foo", "pair.margin=-1", "zz"])
    text = problems(error)
    assert "5 problems" in text
    assert "sample.temprature: unknown key (value 2); did you mean sample.temperature?" in text
    assert "sample.n: input should be greater than or equal to 1 (value 0)" in text
    assert "source.kind: unknown (value 'foo'); use one of scenes, jsonl" in text
    assert "pair.margin" in text and "-1" in text
    assert "'zz' is not of the form KEY=VALUE" in text


def test_an_unknown_key_names_the_keys_of_the_chosen_kind() -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe("quickstart", ["sample.engine.kind=scripted", "sample.engine.dtype=auto"])
    assert "sample.engine.dtype: unknown key" in problems(
        error
    ) and "kind, texts, seconds_per_request, workers" in problems(error)


def test_a_missing_section_is_named() -> None:
    with pytest.raises(ConfigError) as error:
        make_recipe({"name": "x", "source": {}, "pair": {"weights": {"correctness": 1}}})
    assert "sample: missing" in problems(error)


@pytest.mark.parametrize(
    ("section", "value", "reason"),
    [
        ("sample", {"model": "m", "temperature": 0, "n": 2}, "greedy"),
        ("score", {"scorers": []}, "at least one"),
        ("score", {"scorers": ["objects", "objects"]}, "twice"),
        ("pair", {"weights": {"correctness": 0}}, "weight other than 0"),
        ("pair", {"weights": {"clip.cosine": 1}}, "no scorer gives clip.cosine"),
        ("name", "../elsewhere", "name"),
    ],
)
def test_rules_between_keys(section: str, value: object, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        make_recipe({**MINIMAL, section: value})


def test_an_unknown_recipe_gets_a_suggestion_and_a_missing_file_does_not_look_like_one() -> None:
    with pytest.raises(ConfigError, match="did you mean 'quickstart'"):
        load_recipe("quickstrat")
    with pytest.raises(ConfigError, match="no recipe file"):
        load_recipe("some/where.yaml")


def test_a_file_is_named_after_itself_unless_it_says_otherwise(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in MINIMAL.items() if key != "name"}))
    assert load_recipe(path).run_dir == Path("runs/mine")
    assert load_recipe(path.rename(tmp_path / "my recipe (2).yaml")).run_dir == Path("runs/my-recipe-2")
    with pytest.raises(ConfigError, match=r"'猫' cannot be the run's folder.*as in name: mine"):
        load_recipe(path.with_name("my recipe (2).yaml").rename(tmp_path / "猫.yaml"))
    with pytest.raises(ConfigError, match=r"'a b' cannot be .* as in name: a-b"):
        load_recipe(tmp_path / "猫.yaml", ["name=a b"])


@pytest.mark.parametrize("text", ["a: [", "- a", ""])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError):
        load_recipe(path)


def test_a_recipe_survives_dumping_and_loading() -> None:
    recipe = load_recipe("quickstart")
    assert make_recipe(recipe.model_dump(mode="json")) == recipe
    assert flatten(recipe.model_dump())["sample.engine.kind"] == "vllm"


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        ("sample.models={a: 1}", "sample.models: should be a list, such as [1, 2] (value {'a': 1})"),
        ("sample.models=[5]", "sample.models.0: should be a group of keys, such as {name: 1} (value 5)"),
        ("pair.weights=[1]", "pair.weights: should be a group of keys, such as {name: 1} (value [1])"),
        (
            "sample.temperature=hot",
            "sample.temperature: input should be a valid number, unable to parse string as a number (value 'hot'); or "
            "should be a list, such as [1, 2] (value 'hot')",
        ),
        (
            "sample.temperature=[1, hot]",
            "sample.temperature.1: input should be a valid number, unable to parse string as a number (value 'hot')",
        ),
        (
            "sample.model.x=1",
            "sample.model.x: sample.model is 'scenes-vlm', not a group; write sample.model=... instead",
        ),
        ("sample.n=yes", "sample.n: true is no number; write one"),
        ("sample.n", "override 'sample.n' is not of the form KEY=VALUE, for instance seed=1"),
    ],
)
def test_what_is_wrong_is_said_in_the_words_of_yaml_and_reaches_the_console_whole(override: str, reason: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_recipe("quickstart", [override])
    assert message(error.value) == (f"error: {reason}", 2)


@pytest.mark.parametrize(
    ("override", "meant"),
    [
        ("train.lr=1e-5", "train.learning_rate"),
        ("train.num_train_epochs=1", "train.epochs"),
        ("train.per_device_train_batch_size=2", "train.micro_batch_size"),
        ("train.lora_rank=8", "train.lora"),
        ("train.lora.rank=8", "train.lora.r"),
        ("sample.num_generations=4", "sample.n"),
        ("num_generations=4", "sample.n"),
        ("lr=1e-5", "train.learning_rate"),
        ("epochs=1", "train.epochs"),
        ("lora_rank=8", "train.lora"),
        ("alpha=8", "train.lora.alpha"),
        ("model=m", "sample.model or train.model"),
        ("sample.max_new_tokens=64", "sample.max_tokens"),
        ("sample.engine.tp=2", "sample.engine.tensor_parallel_size"),
        ("evaluate.tasks=[pope]", "known keys"),
    ],
)
def test_what_other_tools_call_an_option_is_understood(override: str, meant: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_recipe("quickstart", [override], WholeRecipe)
    assert f"did you mean {meant}?" in str(caught.value) or (meant == "known keys" and meant in str(caught.value))


def test_every_name_of_other_tools_leads_to_an_option() -> None:
    options = set(
        re.findall(r"^\| `(\w+)`", (Path(__file__).parents[3] / "docs" / "configuration.md").read_text(), re.M)
    )
    assert {ours for names in other_names._OURS.values() for ours in names} <= options
