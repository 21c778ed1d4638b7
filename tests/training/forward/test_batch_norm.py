"""Towers with batch norms (FastVLM's): what a pair's log-probs are does not depend on what else is in its pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from pipeline.base.export import save_for_vllm
from training import formats
from training.config import TrainConfig
from training.data.dataset import prepare
from training.forward import model as tuning
from training.forward.model import disable_dropout, load_model, prepare_tuning
from training.forward.policy import make_policy, pair_logps
from training.loop.trainer import train

Configure = Callable[..., TrainConfig]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def fast_vlm(processor: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """FastVLM with timm's smallest ResNet for a tower, whose norms have seen some pixels."""
    from transformers import (
        CLIPImageProcessor,
        FastVlmConfig,
        FastVlmForConditionalGeneration,
        LlavaProcessor,
        Qwen2Config,
        TimmWrapperConfig,
    )

    size = {"height": 64, "width": 64}
    reader = LlavaProcessor(
        image_processor=CLIPImageProcessor(size=size, crop_size=size, do_center_crop=False),
        tokenizer=processor.tokenizer,
        patch_size=32,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=processor.chat_template,
    )
    text = Qwen2Config(
        vocab_size=len(processor.tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=0.2,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
    )
    tower = TimmWrapperConfig(architecture="test_resnet", do_pooling=True, global_pool="avg", hidden_size=96)
    torch.manual_seed(0)
    model: Any = FastVlmForConditionalGeneration(
        FastVlmConfig(
            vision_config=tower, text_config=text, image_token_index=processor.image_token_id, image_seq_length=4
        )
    )
    with torch.no_grad():
        for _ in range(20):
            model.model.vision_tower.train()(torch.randn(4, 3, 64, 64))
    return save_for_vllm(model.eval(), reader, tmp_path_factory.mktemp("fast") / "model")


def logps(fast_vlm: Path, configure: Configure, prepared: Callable[[Any, TrainConfig], Any]) -> tuple[str, list[float]]:
    """The note on prefix sharing, and log p(chosen) of the first pair alone and in larger passes."""
    config = configure(model=str(fast_vlm), objective="mdpo", tuning="lora", lora={"r": 2})
    model, reader = load_model(config)
    pairs = prepare(formats.open(config.dataset), reader, config)
    policy = make_policy(prepared(model, config), CPU, config, pairs)
    with torch.no_grad():
        return policy.note, [pair_logps(policy, pairs, range(size), config)["chosen"][0].item() for size in (1, 2, 4)]


def test_a_pair_has_the_log_probs_of_inference_whatever_else_is_in_its_pass(
    fast_vlm: Path, configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    def as_served(model: nn.Module, _: TrainConfig) -> nn.Module:
        disable_dropout(model.eval())
        return model

    _, served = logps(fast_vlm, configure, as_served)
    note, trained = logps(fast_vlm, configure, prepare_tuning)
    assert trained == pytest.approx([served[0]] * 3, abs=1e-4) and note.startswith("prefix sharing: on")
    # The negative control: in train mode they depend on their neighbours.
    monkeypatch.setattr(tuning, "hold_statistics", lambda model: None)
    _, odd = logps(fast_vlm, configure, prepare_tuning)
    assert min(abs(value - served[0]) for value in odd) > 0.05 and abs(odd[0] - odd[1]) > 0.05


def test_a_frozen_tower_is_exported_as_it_was(fast_vlm: Path, configure: Configure) -> None:
    config = configure(model=str(fast_vlm), objective="mdpo", max_steps=2, tuning="full")
    before = load_file(fast_vlm / "model.safetensors")
    after = load_file(train(config).model / "model.safetensors")
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed and not any("vision_tower" in name for name in changed)


def test_whole_layers_are_not_dropped_either() -> None:
    class DropPath(nn.Module):
        drop_prob = 0.1

    model = nn.Sequential(DropPath(), nn.Dropout(0.5))
    disable_dropout(model)
    assert [model[0].drop_prob, model[1].p] == [0.0, 0.0]
