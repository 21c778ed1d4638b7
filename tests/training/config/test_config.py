"""The configuration: defaults, overrides, and errors that name the key, the value and the remedy."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, TypeAdapter, ValidationError

from pipeline.base.config_file import groups
from pipeline.base.errors import ConfigError
from training.config import TrainConfig, load_config, make_config

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


def test_a_place_may_be_below_the_home_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or a dataset that is found before the first stage would not be found by the trainer, hours later."""
    monkeypatch.setenv("HOME", "/home/me")
    extra = {"eval_dataset": "~/b", "sft": {"dataset": "~/c.jsonl"}, "allowed_roots": ["~/d"], "image_root": "~"}
    config = make_config({**MINIMAL, "dataset": "~/a", "output_dir": "~/o", **extra})
    assert (config.dataset, config.output_dir) == ("/home/me/a", Path("/home/me/o"))
    assert config.sft is not None and config.sft.dataset == "/home/me/c.jsonl"
    assert (config.eval_dataset, config.allowed_roots) == ("/home/me/b", ("/home/me/d",))
    assert config.image_root == "/home/me"


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
        ("objective=ppo", r"^objective: 'ppo' is none of the objectives; did you mean dpo\?$"),
        ("corruption.keep_area=[0.2, 0.1]", r"corruption\.keep_area: needs 0 < low <= high <= 1, for instance"),
        ("lora.dropout=0.05", r"lora\.dropout: must be 0: .*\(value 0\.05\)"),
        ("micro_batch_size=64", r"micro_batch_size=64 is larger than batch_size=32; lower it"),
        ("freeze_vision=false", r"tuning=lora trains the language model only; set freeze_vision=true"),
        ("beta", r"override 'beta' is not of the form KEY=VALUE"),
        ("beta.x=1", r"beta\.x: unknown key|beta"),
    ],
)
def test_an_error_names_the_key_the_value_and_the_remedy(file: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load_config(file, [override])


NAN, INF = float("nan"), float("inf")
WRONG: list[tuple[dict[str, Any], str]] = [
    *(({key: value}, rf"{key}: ") for key in ("learning_rate", "beta", "adam_epsilon", "max_grad_norm")
      for value in (0, -1, NAN, INF, -INF, True, "much", None)),
    *(({key: value}, rf"{key}: ") for key in ("weight_decay", "label_smoothing") for value in (-1, NAN, INF, True)),
    *(({key: value}, rf"{key}: ") for key in ("vision_learning_rate", "projector_learning_rate")
      for value in (0, -1, NAN)),
    *(({key: value}, rf"{key}: ")
      for key in ("epochs", "max_steps", "batch_size", "micro_batch_size", "max_tokens_per_batch", "limit",
                  "max_length", "eval_steps", "patience", "workers", "head_chunk", "logging_steps", "save_steps",
                  "max_image_bytes", "max_image_pixels")
      for value in (0, -1, 1.5, True, NAN, 10**12)),
    *(({"image_threads": value}, "image_threads") for value in (-1, 1.5, True, NAN, 10**12)),
    *(({"warmup_ratio": value}, "warmup_ratio: ") for value in (-0.1, 1.1, NAN)),
    *(({"anchor_delta": value}, "anchor_delta: ") for value in (NAN, INF, True)),
    *(({"seed": value}, "seed: ") for value in (-1, 2**32, 0.5, True)),
    *(({key: ""}, f"{key}: ") for key in ("model", "dataset", "eval_dataset", "wandb_project")),
    ({"label_smoothing": 0.5}, "label_smoothing: input should be less than 0.5"),
    ({"adam_betas": [1, 1]}, r"adam_betas\.0: input should be less than 1"),
    ({"adam_betas": [0.9, 1]}, r"adam_betas\.1: input should be less than 1"),
    ({"adam_betas": [0.9, NAN]}, r"adam_betas\.1: "),
    ({"adam_betas": [0.9]}, "adam_betas"),
    ({"objective": "dpo", "weights": {"response": 0}}, r"objective=dpo trains on nothing.*weights\.response"),
    ({"objective": "dpo", "loss_weights": [0]}, r"trains on nothing.*loss_weights"),
    ({"weights": {"response": 0, "image": 0, "anchor": 0}}, r"objective=mdpo trains on nothing"),
    ({"weights": {"response": 0, "image": 0}, "anchors": []}, r"objective=mdpo trains on nothing"),
    ({"objective": "symmpo", "weights": {"response": 0, "symmetric": 0, "anchor": 0, "margin": 0}}, "nothing"),
    ({"objective": "dpo", "weights": {"response": 0}, "sft": {"dataset": "s", "weight": 0}}, "trains on nothing"),
    ({"weights": {"image": NAN}}, r"weights\.image: "),
    ({"weights": {"response": -1}}, r"weights\.response: "),
    ({"loss_type": []}, "loss_type is empty"),
    ({"loss_type": ["sigmoid", "sigmoid"]}, "loss_type names one twice"),
    ({"loss_weights": [1, 2]}, "loss_weights has 2"),
    ({"loss_weights": [NAN]}, r"loss_weights\.0: "),
    ({"anchors": ["chosen", "chosen"]}, "anchors names one twice"),
    ({"objective": "dpo", "anchors": ["corrupted"]}, "anchors: corrupted needs objective=mdpo"),
    *(({"lora": {"r": value}}, r"lora\.r: ") for value in (0, -1, 1.5, True)),
    *(({"lora": {"alpha": value}}, r"lora\.alpha: ") for value in (0, -1, NAN, INF)),
    ({"lora": {"target_modules": []}}, r"lora\.target_modules: names no layer"),
    ({"corruption": {"keep_area": [0, 0.1]}}, r"corruption\.keep_area: "),
    ({"corruption": {"keep_area": [0.1, NAN]}}, r"corruption\.keep_area\.1: "),
    ({"corruption": {"strength": 0}}, r"corruption\.strength: "),
    ({"corruption": {"kind": "block_mask", "strength": 1.5}}, "corruption: strength=1.5 is a share"),
    ({"corruption": {"kind": "clip_mask", "strength": 2, "clip_model": "scenes-clip"}}, "is a share"),
    ({"corruption": {"kind": "clip_mask"}}, r"needs corruption\.clip_model"),
    ({"corruption": {"steps": 1001}}, r"corruption\.steps: "),
    ({"corruption": {"candidates": 0}}, r"corruption\.candidates: "),
    ({"sft": {"dataset": "s", "weight": -0.5}}, r"sft\.weight: "),
    ({"sft": {"dataset": "s", "weight": INF}}, r"sft\.weight: "),
    ({"sft": {"dataset": "s", "batch_size": 0}}, r"sft\.batch_size: "),
    ({"sft": {"dataset": ""}}, r"sft\.dataset: "),
    ({"draw": {"rounds": 0}}, r"draw\.rounds: "),
    ({"draw": {"descriptions": 0}}, r"draw\.descriptions: "),
    ({"patience": 2}, "patience needs evaluations"),
    ({"output_dir": ""}, "output_dir is empty or the working directory"),
    ({"model": "o/model"}, "model=o/model lies where the trained model goes"),
    ({"vision_learning_rate": 1e-5}, "freeze_vision=true; set freeze_vision=false"),
    ({"projector_learning_rate": 1e-5, "tuning": "full"}, "freeze_projector=true; set freeze_projector=false"),
    ({"quantization": "nf4", "tuning": "full"}, "quantization=nf4 needs tuning=lora"),
    ({"quantization": "nf4", "sharding": "fsdp"}, "cannot be split"),
    ({"use_images": False}, "use_images=false leaves mdpo nothing to compare"),
    ({"objective": "dpo", "probe_image": True, "use_images": False}, "probe_image=true needs images"),
    ({"cache_image_features": True, "share_image_features": False}, "cache_image_features=true needs"),
    ({"batch_size": 2, "micro_batch_size": 4}, "micro_batch_size=4 is larger than batch_size=2"),
    ({"resume": "sometimes"}, "resume: "),
    ({"dtype": "float16"}, "dtype: "),
]  # fmt: skip


@pytest.mark.parametrize(("values", "message"), WRONG, ids=[str(values) for values, _ in WRONG])
def test_what_cannot_be_meant_is_refused_by_name(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make_config({**MINIMAL, **values})
    assert all(len(line) < 300 for line in str(caught.value).splitlines())


def test_every_number_of_the_configuration_is_in_the_table() -> None:
    """A new option that is a number needs its bounds, and a line above."""

    def numbers(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
        for name, field in model.model_fields.items():
            schema = json.dumps(TypeAdapter(field.rebuild_annotation()).json_schema())
            if inner := groups(field):
                yield from numbers(inner[""], f"{prefix}{name}.")
            elif '"number"' in schema or '"integer"' in schema:
                yield f"{prefix}{name}"

    tried = {
        f"{key}.{inner}" if isinstance(value, dict) else key
        for values, _ in WRONG
        for key, value in values.items()
        for inner in (value if isinstance(value, dict) else (None,))
    }
    assert set(numbers(TrainConfig)) - {"lora.dropout"} <= tried | {"weights.symmetric", "weights.margin"}


def test_what_may_look_odd_is_accepted() -> None:
    for values in (
        {"objective": "dpo", "weights": {"response": 0}, "sft": {"dataset": "s"}},
        {"weights": {"response": 0, "image": 0}},
        {"weights": {"response": 0, "anchor": 0}, "loss_weights": [0]},
        {"corruption": {"kind": "gaussian", "strength": 2}},
        {"tuning": "full", "freeze_vision": False, "vision_learning_rate": 1e-6},
        {"adam_betas": [0, 0.999], "warmup_ratio": 1, "weight_decay": 0, "seed": 2**32 - 1},
        {"learning_rate": "1e-5"},  # what YAML makes of 1e-5
    ):
        make_config({**MINIMAL, **values})


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
