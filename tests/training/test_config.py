"""The configuration: defaults, overrides, and errors that name the key, the value and the remedy."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from training.config.load import load_config, make_config
from training.errors import ConfigError

MINIMAL = {"model": "m", "dataset": "d", "output_dir": "o"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text("model: m\ndataset: d\noutput_dir: o\nlora:\n  r: 8\n")
    return path


def test_the_defaults_are_the_published_mdpo_settings() -> None:
    config = make_config(MINIMAL)
    assert (config.beta, config.anchor_delta, config.epochs, config.batch_size) == (0.1, 0.0, 3, 32)
    assert (config.weights.response, config.weights.image, config.weights.anchor) == (1.0, 1.0, 1.0)
    assert config.corruption.keep_area == (0.01, 0.2)
    assert (config.lora.r, config.lora.alpha, config.lora.dropout) == (64, 128.0, 0.0)


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        make_config(MINIMAL).beta = 0.5  # type: ignore[misc]


def test_overrides_are_yaml_and_reach_into_groups(file: Path) -> None:
    config = load_config(file, ["learning_rate=5e-6", "lora.alpha=4", "corruption.keep_area=[0.1, 0.3]", "max_steps=7"])
    assert config.learning_rate == 5e-6
    assert (config.lora.r, config.lora.alpha) == (8, 4.0)
    assert config.corruption.keep_area == (0.1, 0.3)
    assert config.max_steps == 7
    assert load_config(file, ["max_steps=7", "max_steps=null"]).max_steps is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("learning_rat=1", r"learning_rat: unknown key \(value 1\); did you mean learning_rate\?"),
        ("lora.alhpa=1", r"lora\.alhpa: unknown key \(value 1\); did you mean lora\.alpha\?"),
        ("corruption.keep=0.5", r"corruption\.keep: unknown key .*did you mean corruption\.keep_area\?"),
        ("zzz=1", r"zzz: unknown key \(value 1\); known keys: model,"),
        ("beta=-1", r"beta: input should be greater than 0 \(value -1\)"),
        ("epochs=many", r"epochs: input should be a valid integer.*\(value 'many'\)"),
        ("objective=ppo", r"objective: input should be 'dpo', 'mdpo' or 'symmpo' \(value 'ppo'\)"),
        ("corruption.keep_area=[0.2, 0.1]", r"corruption\.keep_area: needs 0 < low <= high <= 1, for instance"),
        ("lora.dropout=0.05", r"lora\.dropout: must be 0: .*\(value 0\.05\)"),
        ("micro_batch_size=64", r"micro_batch_size=64 is larger than batch_size=32; lower it"),
        ("freeze_vision=false", r"tuning=lora trains the language model only; set freeze_vision=true"),
        ("beta", r"override 'beta' is not of the form key=value"),
        ("beta.x=1", r"beta\.x: unknown key|beta"),
    ],
)
def test_an_error_names_the_key_the_value_and_the_remedy(file: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(file, [override])


def test_all_errors_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        make_config({"modell": "m", "beta": 0, "output_dir": "o"})
    text = str(caught.value)
    for part in ("modell: unknown key", "did you mean model?", "beta: ", "model: missing", "dataset: missing"):
        assert part in text


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "cannot read the configuration"), ("a: [", "not valid YAML"), ("- a", "holds a list")],
)
def test_an_unreadable_file_is_an_error_that_names_it(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "broken.yaml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_config(path)


def test_the_configuration_imports_no_torch() -> None:
    code = "import sys, training.config; sys.exit(any(m in sys.modules for m in ('torch', 'transformers', 'datasets')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_help_imports_nothing_heavy_and_answers_quickly() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; import training.run as run;"
        "text = CliRunner().invoke(run.app, ['--help']).output; assert 'CONFIG' in text, text;"
        "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules); import time; print(time.process_time())"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert float(result.stdout) < 2.0  # CPU seconds; well under one on an idle machine


def test_a_wrong_configuration_ends_with_status_2_and_one_message(file: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "training.run", str(file), "betta=1"], capture_output=True, text=True
    )
    assert result.returncode == 2
    assert result.stderr == "error: betta: unknown key (value 1); did you mean beta?\n"
