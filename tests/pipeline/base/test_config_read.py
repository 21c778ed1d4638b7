"""YAML that a user writes: read, or refused in one line that holds nothing of it but the place."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.base import yaml_file as read
from pipeline.base.errors import LONGEST, ConfigError
from pipeline.recipe.load import load_recipe
from training.config import load_config

BOMB = "name: x\na: &a [lol,lol,lol,lol,lol,lol,lol,lol,lol]\n" + "".join(
    f"{name}: &{name} [{','.join(9 * [f'*{before}'])}]\n" for before, name in zip("abcdefg", "bcdefgh", strict=True)
)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (BOMB, "line 6, column 4: holds more than 20000 values, aliases counted as what they name"),
        (f"a: {'[' * 3000}{']' * 3000}", "nested more than 32 levels deep"),
        ("a:\n" + "".join(f"{' ' * i}b:\n" for i in range(1, 99)), "line 33, column 33: nested more than 32 levels"),
        ("a: 2020-13-45", "line 1, column 4: '2020-13-45' cannot be read (month must be in 1..12); quote it"),
        ("a: 1\nb: 2\na: 3\n", "line 3, column 1: the key a comes twice; remove one"),
        ("a:\n\tb: 1\n", "line 2, column 1: a tab where spaces belong"),
        ("a: 1".encode("utf-16"), "byte 0 is not UTF-8; save the file as UTF-8"),
        (b"a: caf\xe9", "byte 6 is not UTF-8"),
        ('a: "\\0"', "line 1, column 4: a text with a NUL or half of a surrogate pair"),
        ('a: "\\ud800"', "line 1, column 4: a text with a NUL or half of a surrogate pair"),
        ('a: "\\U00110000"', "line 1: chr() arg not in range"),
        (f"a: {'1' * 5000}", "cannot be read (Exceeds the limit"),
        ("a: &a [*a]", "line 1, column 4: an alias holds itself"),
        ("? [1, 2]\n: 3", "line 1, column 3: found unhashable key"),
        ("a: !!python/object:os.system x", "could not determine a constructor"),
        ("a: !!timestamp x", "'x' cannot be read"),
        ("a: " + "x" * 1_100_000, "more than 1000000 bytes"),
    ],
)
@pytest.mark.parametrize("load", [load_recipe, load_config])
def test_what_cannot_be_meant_is_one_short_line(
    load: Callable[[Path], Any], data: str | bytes, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    begun = time.monotonic()
    with pytest.raises(ConfigError) as caught:
        load(path)
    text = str(caught.value)
    assert f"bad.yaml is not valid YAML: {reason}" in text or reason in text
    assert len(text) < 600 and time.monotonic() - begun < 10


def test_a_bom_is_no_part_of_the_text_and_merged_keys_are_no_duplicates(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: &a {x: 1}\nb: {<<: *a, x: 2}\n")
    assert read.file(path) == {"a": {"x": 1}, "b": {"x": 2}}


@pytest.mark.parametrize("value", ["sk-planted-8f3a91c2d7e6", "https://me:8f3a91c2d7e6@host/x", "8f3a91c2d7e6"])
@pytest.mark.parametrize("key", ["sample.engine.api_key", "password", "train.hf_token", "sample.api_key.x", "apiKey"])
def test_a_secret_given_as_an_option_does_not_come_back(key: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        from training import job

        recipe = load_recipe("quickstart", [f"{key}={value}"])
        from pipeline.recipe.plan import Plan

        job.check(Plan(recipe, job.evaluation_of(recipe)))
    assert "8f3a91c2d7e6" not in str(caught.value)
    assert "unknown key" in str(caught.value) or "looks like a password" in str(caught.value)


@pytest.mark.parametrize("key", ["sample.system_prompt", "sample.model", "train.model", "source.prompts", "x"])
def test_a_value_that_surely_is_a_secret_is_refused_before_it_is_kept_with_the_run(key: str) -> None:
    value = "[hf_planted8f3a91c2d7e6]" if key == "source.prompts" else "hf_planted8f3a91c2d7e6"
    with pytest.raises(ConfigError, match="looks like a password or access key, which would be kept") as caught:
        load_recipe("quickstart", [f"{key}={value}"])
    assert "8f3a91c2d7e6" not in str(caught.value)


@pytest.mark.parametrize(
    "override", ["sample={models: {a: 1}}", "sample={models: 5}", "sample={models: x}", "sample={models: [1]}"]
)
def test_models_that_are_no_list_of_groups_are_one_problem(override: str) -> None:
    with pytest.raises(ConfigError, match="sample"):
        load_recipe("quickstart", [override])


def test_many_problems_are_counted_and_not_all_listed(tmp_path: Path) -> None:
    path = tmp_path / "many.yaml"
    path.write_text("".join(f"key{i}: {i}\n" for i in range(5000)) + f"? {'k' * 90_000}\n: 1\n")
    with pytest.raises(ConfigError) as caught:
        load_recipe(path)
    assert len(str(caught.value)) <= LONGEST and "the recipe has 5004 problems" in str(caught.value)
    assert "more" in str(caught.value).splitlines()[-1]


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


@given(plain)
def test_what_yaml_writes_is_read_as_it_was_or_refused(value: Any) -> None:
    import yaml

    try:
        values = read.text(yaml.safe_dump(value, allow_unicode=False))
    except read.BadYaml:
        return
    assert values == value


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(value: str) -> None:
    try:
        read.text(value)
    except read.BadYaml as error:
        assert len(str(error)) < 400
    assert len(read.excerpt(value)) < 400
