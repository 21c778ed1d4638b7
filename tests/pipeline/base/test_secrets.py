"""A secret in a recipe, an override or a URL comes back nowhere: not in an error, a plan, or a file of the run."""

from __future__ import annotations

import string
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from stage_kit import recipe
from typer.testing import CliRunner

from pipeline import run as module
from pipeline.base import secrets
from pipeline.base.config import flatten
from training.run import app as train

LETTERS = string.ascii_letters + string.digits
drawn = st.text(LETTERS, min_size=24, max_size=40).map(lambda text: f"aB3{text}9Zx7Q")
#: A secret as it may stand in a value: (the value, what must not come back).
values = st.one_of(
    drawn.map(lambda secret: (f"hf_{secret}", secret)),
    drawn.map(lambda secret: (f"sk-{secret}", secret)),
    drawn.map(lambda secret: (f"ghp_{secret}", secret)),
    drawn.map(lambda secret: (f"https://me:{secret}@host/a", secret)),
    drawn.map(lambda secret: (f"s3://me:{secret}@bucket/a", secret)),
    drawn.map(lambda secret: (f"https://host/a?token={secret}", secret)),
    drawn.map(lambda secret: (f"[a, hf_{secret}]", secret)),
    drawn.map(lambda secret: (f"{{api_key: {secret}}}", secret)),
)
KEYS = [*flatten(recipe("runs").model_dump(mode="json")), "train.model", "train.wandb_project", "evaluate.describe"]
keys = st.one_of(
    st.sampled_from(KEYS),
    st.sampled_from(KEYS).map(lambda key: f"{key}x"),
    st.sampled_from(
        ["api_key", "sample.engine.api_key", "sample.engine.base_url", "hf_token", "source.password", "x.y"]
    ),
)


def everything(folder: Path) -> str:
    return "\n".join(path.read_bytes().decode("utf-8", "replace") for path in folder.rglob("*") if path.is_file())


@settings(max_examples=60)
@given(keys, values, st.booleans(), st.booleans())
def test_what_is_given_comes_back_nowhere(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: tuple[str, str], in_file: bool, debug: bool
) -> None:
    folder = tmp_path_factory.mktemp("secret")
    path, (written, secret) = folder / "recipe.yaml", value
    loaded = recipe(folder / "runs").model_dump(mode="json")
    if in_file:
        loaded[key.partition(".")[0]] = {key.rpartition(".")[2]: written}
    path.write_text(yaml.safe_dump(loaded))
    more = [*([] if in_file else [f"{key}={written}"]), "--plan", *(["--debug"] if debug else [])]
    result = CliRunner().invoke(module.app, [str(path), *more])
    path.unlink()
    assert secret not in result.output and secret not in everything(folder)


@settings(max_examples=30)
@given(st.sampled_from(["model", "dataset", "modle", "api_key", "lora.r", "beta", "sft.dataset", "output_dir"]), values)
def test_nor_does_it_from_a_training(
    tmp_path_factory: pytest.TempPathFactory, key: str, value: tuple[str, str]
) -> None:
    folder = tmp_path_factory.mktemp("secret")
    path = folder / "train.yaml"
    path.write_text("model: /nowhere/at-all\ndataset: /nowhere\noutput_dir: o\n")
    result = CliRunner().invoke(train, [str(path), f"{key}={value[0]}"])
    assert result.exit_code != 0 and value[1] not in result.output


def test_an_override_that_is_refused_is_in_no_card_or_record(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe(tmp_path / "runs").model_dump(mode="json")))
    result = CliRunner().invoke(module.app, [str(path), "sample.system_prompt=Use hf_planted8f3a91c2d7e6b5"])
    assert result.exit_code == 2 and "password or access key" in result.stderr and not (tmp_path / "runs").exists()


@given(st.text(max_size=300))
def test_masking_is_the_same_twice_and_ends(text: str) -> None:
    once = secrets.message(text)
    assert secrets.message(once) == once or secrets.MASK in once


@pytest.mark.parametrize("unit", ["a", "a-", "a.", "://", "x=", "a:", "sk-", "'a' : ", "--a ", "@", "?a=", "a@b:"])
def test_masking_takes_no_more_than_the_length(unit: str) -> None:
    import time

    begun = time.process_time()
    secrets.message(unit * (60_000 // len(unit)))
    assert time.process_time() - begun < 2


@pytest.mark.parametrize(
    "text",
    [
        "id 5f2b8c1d9e4a7f3b6c8d2e1a: no image",
        "data/hf_datasets_of_2024/train-00000-of-00010.parquet is missing",
        "sample.max_tokens=96 is above max_model_len=64",
        "Qwen2-VL-7B-Instruct-GPTQ-Int4 has no processor",
        "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "unknown keys: temprature; did you mean temperature?",
        "s3://bucket/data-?.jsonl matches nothing",
        "the variable OPENAI_API_KEY is not set",
        'objective was mylab.grounded:Grounded@1 {"gap": 0.5} and is mylab.grounded:Grounded@2 {}',
        "api_key_env: unknown key; known keys: kind, base_url",
        "scorers.objects: 2:scenes@1; scorers.brevity: mylab.brevity:Brevity@1.2 {}",
    ],
)
def test_what_is_no_secret_stays(text: str) -> None:
    assert secrets.message(text) == text


SECRETS = st.builds(
    "{}{}{}{}".format,
    st.sampled_from(["", "see ", "x", "https://host/?a=", "s3://"]),
    st.sampled_from(
        ["hf_", "sk-", "sk-proj-", "github_pat_", "AKIA", "ghp_", "https://me:pw@host/", "http://h/?token="]
    ),
    st.text("abAB01_-", max_size=24),
    st.sampled_from(["", " and more", "@host/", "\n"]),
)


@given(SECRETS)
def test_what_holds_a_secret_is_suspect_to_an_engine_without_look_around(text: str) -> None:
    found = pc.match_substring_regex(pa.array([text]), secrets.suspect_pattern()).to_pylist()
    assert found == [True] or not secrets.holds(text)


def test_values_of_the_environment_are_suspect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_PASSWORD", "open (sesame) [x] now")
    found = pc.match_substring_regex(pa.array(["say open (sesame) [x] now!", "open sesame"]), secrets.suspect_pattern())
    assert found.to_pylist() == [True, False] and "open (sesame) [x] now" in secrets.of_environment()
