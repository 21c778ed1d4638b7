"""The parts of a model under whatever names: found, or refused with a reason before anything is trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText, PretrainedConfig

from reward.forward.parts import Parts
from training.config import make_config
from training.errors import ModelError
from training.forward import model as module
from training.forward.model import load_processor, prepare_tuning
from training.forward.saved_model import part_of

_DEPTHS = ("num_hidden_layers", "depth", "encoder_layers")


def outline(kind: str) -> Any:
    """A model of the kind with two layers a part and no weights."""
    config = AutoConfig.for_model(kind)
    _shorten(config)
    with torch.device("meta"):
        return AutoModelForImageTextToText.from_config(config)


def _shorten(config: PretrainedConfig) -> None:
    for key, value in list(vars(config).items()):
        if isinstance(value, PretrainedConfig):
            _shorten(value)
        elif key in _DEPTHS and isinstance(value, int):
            setattr(config, key, 2)
            if isinstance(getattr(config, "layer_types", None), list):
                config.layer_types = config.layer_types[:2]


@pytest.mark.parametrize(
    ("kind", "language"),
    [
        ("llava", "LlamaModel"),  # model.language_model
        ("idefics2", "MistralModel"),  # model.text_model
        ("idefics", "IdeficsModel"),  # the model itself
        ("lighton_ocr", "Qwen3Model"),  # beside a vision_encoder and a vision_projection
        ("kimi_k25", "DeepseekV3Model"),  # beside an mm_projector
    ],
)
def test_the_language_model_is_found_and_nothing_else_is_taken_for_it(kind: str, language: str) -> None:
    whole = outline(kind)
    parts = Parts.of(whole)
    assert type(parts.language).__name__ == language and len(parts.layers) == 2
    if parts.language is not parts.backbone:
        inside = {id(value) for part in (parts.language, parts.head) for value in part.parameters()}
        for name, value in whole.named_parameters():
            assert (part_of(name) == "language") == (id(value) in inside), name


def test_adapters_lie_on_the_language_model_alone() -> None:
    model = prepare_tuning(outline("lighton_ocr"), make_config({"model": "m", "dataset": "d", "output_dir": "o"}))
    moving = {name for name, value in model.named_parameters() if value.requires_grad}
    assert moving and all(".language_model.layers." in name and ".lora_" in name for name in moving)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("llama4", "Llama4ForConditionalGeneration is not built of a `model` and an `lm_head`"),
        ("blip-2", "Blip2ForConditionalGeneration is not built of a `model` and an `lm_head`"),
        ("florence2", "Florence2ForConditionalGeneration reads prompts by an encoder and answers by a decoder"),
        ("qwen2_5_omni_thinker", "the `model` of Qwen2_5OmniThinkerForConditionalGeneration reads no images"),
    ],
)
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_what_is_built_otherwise_is_refused(kind: str, reason: str, tuning: str) -> None:
    """The last one would train in silence on texts alone: its `model` takes pixels and passes them by."""
    config = make_config({"model": "m", "dataset": "d", "output_dir": "o", "tuning": tuning})
    with pytest.raises(ModelError, match=f"{reason}, which training needs; train one of the families"):
        prepare_tuning(outline(kind), config)


def test_smolvlms_processor_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*_: Any, **__: Any) -> Any:
        raise ImportError("Package `num2words` is required to run SmolVLM processor. Install it with ...")

    monkeypatch.setattr("transformers.AutoProcessor.from_pretrained", lacking)
    with pytest.raises(ModelError, match=r"needs num2words; pip install -e '\.\[smolvlm\]'"):
        load_processor(make_config({"model": "m", "dataset": "d", "output_dir": "o"}))
    assert module.check_parts(outline("llava")) is None  # type: ignore[func-returns-value]
