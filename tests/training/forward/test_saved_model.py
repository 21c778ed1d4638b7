"""What the files of a model tell without its weights, and which options of training do not go with it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.base.model_names import resolve
from training.config import TrainConfig, make_config
from training.errors import ModelError
from training.forward.model import load_weights, prepare_tuning, trainable
from training.forward.saved_model import SavedModel, notes, require_fitting

LORA = {"tuning": "lora", "lora": {"r": 4}}


def configured(model: str | Path = "scenes-vlm", **options: Any) -> TrainConfig:
    folder = resolve(str(model))
    return make_config({"model": folder, "dataset": "rows", "output_dir": "out", **options})


def problems(config: TrainConfig) -> list[str]:
    return [str(problem) for problem in SavedModel(Path(config.model)).problems(config)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(resolve("scenes-vlm"), tmp_path / "model"))


@pytest.mark.parametrize(
    "options",
    [
        LORA,
        {**LORA, "lora": {"r": 3, "target_modules": ["q_proj", "down_proj"]}},
        {"tuning": "full"},
        {"tuning": "full", "freeze_vision": False, "freeze_projector": False},
    ],
)
def test_what_moves_is_counted_as_the_trainer_would(options: dict[str, Any]) -> None:
    config = configured(**options)
    model = prepare_tuning(load_weights(config), config)
    moving = sum(parameter.numel() for parameter in trainable(model).values())
    saved = SavedModel(Path(config.model))
    assert saved.moving(config) == moving
    whole = sum(parameter.numel() for parameter in load_weights(config).parameters())
    adapter = 4 * moving if config.tuning == "lora" else 0
    assert saved.disk(config, checkpoints=2) == 4 * whole + adapter + 2 * 12 * moving
    assert problems(config) == [] and torch.float32 is not None


def test_layers_that_are_not_there_are_said_before_anything_is_loaded() -> None:
    config = configured(tuning="lora", lora={"target_modules": ["qkv", "nothing"]})
    (problem,) = problems(config)
    assert "lora.target_modules=['qkv', 'nothing'] match no linear layer" in problem and "q_proj" in problem
    with pytest.raises(Exception, match="match no linear layer"):
        require_fitting(config)
    half = configured(tuning="lora", lora={"target_modules": ["q_proj", "qkv"]}, max_length=4096)
    assert problems(half) == []
    assert notes(half) == [
        "max_length=4096 is more than the 512 positions of the model, which count",
        "lora.target_modules: no linear layer of the model is called qkv",
    ]


def test_an_image_token_that_the_tokenizer_lacks_is_said(folder: Path) -> None:
    assert problems(configured(folder)) == []
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "image_token_index": 99_999}))
    assert "names image token 99999" in problems(configured(folder))[0]


@pytest.mark.parametrize("content", [b"", b"\xff" * 8, b"\x05\0\0\0\0\0\0\0{]", b"\x02\0\0\0\0\0\0\0[]", b"not one"])
def test_damaged_and_foreign_files_tell_nothing_and_stop_nothing(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    for name in ("config.json", "tokenizer.json"):
        (folder / name).write_bytes(content)
    saved, config = SavedModel(folder), configured(folder, tuning="lora", lora={"target_modules": ["qkv"]})
    assert saved.shapes == {} and saved.moving(config) is None and saved.disk(config, 2) is None
    assert list(saved.problems(config)) == [] and list(saved.notes(config)) == []


def test_no_torch_is_needed() -> None:
    code = (
        "import sys; from pathlib import Path; from pipeline.base.model_names import resolve;"
        "from training.forward.saved_model import SavedModel;"
        "assert SavedModel(Path(resolve('scenes-vlm'))).shapes; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_model_that_is_stored_quantised_is_refused_before_it_is_trained(folder: Path) -> None:
    content = json.loads((folder / "config.json").read_text())
    quantised = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    (folder / "config.json").write_text(json.dumps(content | {"quantization_config": quantised}))
    config = configured(folder)
    (problem,) = problems(config)
    assert "its weights are stored quantised" in problem and "give the model that it was made from" in problem
    with pytest.raises(ModelError, match="stored quantised"):  # from the hub: nobody has looked at its files
        load_weights(config)


def test_a_model_with_an_adapter_beside_its_weights_is_refused(folder: Path) -> None:
    """transformers adds it to the weights and vLLM does not: answers and training would be of two models."""
    from peft import LoraConfig, get_peft_model

    config = configured(folder)
    adapted: Any = get_peft_model(load_weights(config), LoraConfig(r=2, target_modules=["q_proj"]))  # type: ignore[arg-type]
    adapted.save_pretrained(folder)
    (problem,) = problems(config)
    assert "an adapter (adapter_config.json) lies beside its weights" in problem
    with pytest.raises(ModelError, match="merge it into the weights, or take its files out"):
        load_weights(config)
