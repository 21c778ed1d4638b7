"""A published dataset is TRL's vision-preference format: its DPOTrainer takes it unchanged."""

from __future__ import annotations

from pathlib import Path

import torch
from datasets import load_dataset, load_from_disk
from stage_kit import generated
from transformers import AutoProcessor, LlavaForConditionalGeneration
from trl import DPOConfig, DPOTrainer

from pipeline.base.model_names import BUILT_IN
from pipeline.publishing import card
from pipeline.publishing.config import Publish
from pipeline.publishing.publish import publish


def test_trl_takes_two_steps_on_a_published_dataset(tmp_path: Path) -> None:
    run = generated(tmp_path)
    folder = publish(run, Publish(), lambda _: card.render(run.path, {}, "python -m pipeline.run")).path
    pairs = load_dataset(str(folder), "pairs", split="train", cache_dir=str(tmp_path / "cache"))
    assert pairs.to_dict() == load_from_disk(str(folder))["pairs"].to_dict()

    model = LlavaForConditionalGeneration.from_pretrained(BUILT_IN["scenes-vlm"], dtype=torch.float32)
    before = {name: value.clone() for name, value in model.named_parameters()}
    trainer = DPOTrainer(
        model=model,
        args=DPOConfig(
            output_dir=str(tmp_path / "trl"),
            max_steps=2,
            per_device_train_batch_size=2,
            learning_rate=1e-3,
            lr_scheduler_type="constant",
            max_length=None,
            bf16=False,
            gradient_checkpointing=False,
            use_cpu=True,
            save_strategy="no",
            logging_steps=1,
            report_to=[],
        ),
        train_dataset=pairs,
        processing_class=AutoProcessor.from_pretrained(BUILT_IN["scenes-vlm"]),
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 2
    assert abs(losses[0] - 0.6931) < 1e-3  # the policy is its own reference before the first update
    assert any(not torch.equal(before[name], value) for name, value in model.named_parameters())
