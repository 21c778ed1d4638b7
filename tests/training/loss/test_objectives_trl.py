"""Each loss is TRL 1.16's, on a model that reads images: the same log-probs, the same mean, the same metrics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from torch import Tensor
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

from training.config import make_config
from training.loss.measure import Measured, measure
from training.loss.objectives import LOSSES

BETA = 0.1
SMOOTHING = 0.1
MPO = (["sigmoid", "bco_pair", "sft"], [0.8, 0.2, 1.0])


@pytest.fixture(scope="module")
def trainer(
    model_folder: Path,
    dataset_folder: Path,
    processor: Any,
    make_model: Callable[..., Any],
    tmp_path_factory: pytest.TempPathFactory,
) -> DPOTrainer:
    """One trainer for all losses, its policy another model than its reference, so that no reward is 0."""
    from transformers import LlavaForConditionalGeneration

    options = DPOConfig(
        output_dir=str(tmp_path_factory.mktemp("trl")),
        beta=BETA,
        label_smoothing=SMOOTHING,
        max_length=None,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        per_device_train_batch_size=8,
    )
    policy = LlavaForConditionalGeneration.from_pretrained(model_folder)
    rows = datasets.load_from_disk(str(dataset_folder))
    trainer = DPOTrainer(policy, args=options, train_dataset=rows, processing_class=processor)
    for target, source in zip(trainer.model.parameters(), make_model(seed=1).parameters(), strict=True):
        target.data.copy_(source.data)
    return trainer


@pytest.fixture(scope="module")
def batch(trainer: DPOTrainer) -> dict[str, Any]:
    """Eight pairs as TRL lays them out; the responses differ in length."""
    rows = trainer.train_dataset.select_columns(["images", "prompt", "chosen", "rejected"])
    return dict(DataCollatorForVisionPreference(trainer.processing_class)(list(rows)))


def theirs(trainer: DPOTrainer, batch: dict[str, Any], names: list[str], weights: list[float] | None = None) -> float:
    trainer.loss_types, trainer.loss_weights = names, weights or [1.0] * len(names)
    with torch.no_grad():
        return trainer._compute_loss(trainer.model, batch, return_outputs=False).item()


def logps(model: Any, batch: dict[str, Any]) -> dict[Any, Tensor]:
    """By way of the full logits, which neither side's trainer makes."""
    inputs = {key: value for key, value in batch.items() if key != "completion_mask"}
    with torch.no_grad():
        logits = model(**inputs, use_cache=False).logits[:, :-1]
    every = logits.log_softmax(-1).gather(2, batch["input_ids"][:, 1:, None]).squeeze(2)
    chosen, rejected = (every * batch["completion_mask"][:, 1:]).sum(1).chunk(2)
    return {"chosen": chosen, "rejected": rejected}


@pytest.fixture(scope="module")
def ours(trainer: DPOTrainer, batch: dict[str, Any]) -> Callable[..., Measured]:
    policy, ref = logps(trainer.model, batch), logps(trainer.ref_model, batch)
    chosen, rejected = batch["completion_mask"].sum(1).chunk(2)

    def ours(names: list[str], weights: list[float] | None = None, **changes: Any) -> Measured:
        config = make_config(
            {"model": "model", "dataset": "data", "output_dir": "out", "objective": "dpo"}
            | {"beta": BETA, "label_smoothing": SMOOTHING, "loss_type": names, "loss_weights": weights}
            | changes
        )
        return measure(policy, ref, {"chosen": chosen, "rejected": rejected}, chosen.float().mean().item(), config)

    return ours


@pytest.mark.parametrize("name", LOSSES)
def test_the_mean_of_each_loss_is_trls(
    name: str, trainer: DPOTrainer, batch: dict[str, Any], ours: Callable[..., Measured]
) -> None:
    assert ours([name]).loss.mean().item() == pytest.approx(theirs(trainer, batch, [name]), abs=1e-5)


def test_a_weighted_list_of_losses_is_trls(
    trainer: DPOTrainer, batch: dict[str, Any], ours: Callable[..., Measured]
) -> None:
    assert ours(*MPO).loss.mean().item() == pytest.approx(theirs(trainer, batch, *MPO), abs=1e-5)


def test_negative_control_each_loss_is_trls_loss_of_that_name_only(
    trainer: DPOTrainer, batch: dict[str, Any], ours: Callable[..., Measured]
) -> None:
    their_means = {name: theirs(trainer, batch, [name]) for name in LOSSES}
    for name in LOSSES:
        mean = ours([name]).loss.mean().item()
        assert [other for other, value in their_means.items() if abs(mean - value) < 1e-3] == [name]


@pytest.mark.parametrize("name", sorted(LOSSES.keys() - {"sft"}))
def test_negative_control_another_beta_is_another_loss(
    name: str, trainer: DPOTrainer, batch: dict[str, Any], ours: Callable[..., Measured]
) -> None:
    assert abs(ours([name], beta=0.15).loss.mean().item() - theirs(trainer, batch, [name])) > 1e-3


def test_metrics_of_the_same_name_are_trls(
    trainer: DPOTrainer, batch: dict[str, Any], ours: Callable[..., Measured]
) -> None:
    logged = trainer._metrics["train" if trainer.model.training else "eval"]
    logged.clear()
    theirs(trainer, batch, ["sigmoid"])
    shared = {name: value.mean().item() for name, value in ours(["sigmoid"]).metrics.items() if name != "loss"}
    assert shared == pytest.approx({name: logged[name][0] for name in shared}, abs=1e-4)
    assert shared["rewards/margins"] != 0
