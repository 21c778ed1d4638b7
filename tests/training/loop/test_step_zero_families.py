"""Answers of one token in bfloat16, by random models of every family: training starts, and with a reference of other
images or of other rows it does not. ``make families`` tries 50 models of each family, ``make test`` two."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tiny_models import FAMILIES, SIDE, Family, idefics3, smolvlm_model

from reward.forward.parts import Parts
from training import formats
from training.config import TrainConfig
from training.data.dataset import prepare
from training.data.identity import Start
from training.data.pairs import PairDataset
from training.errors import StepZeroError
from training.forward.model import prepare_tuning
from training.forward.policy import Policy, make_policy
from training.loop import reference
from training.loop.reference import Reference
from training.loop.step_zero import check_step_zero
from training.loop.worker import Worker

CPU = torch.device("cpu")
SEEDS = range(50 if os.environ.get("FAMILIES") == "all" else 2)
PAIRS = 32
START = Start("weights", "config", "processor")


def rows() -> list[dict[str, Any]]:
    colours = torch.Generator().manual_seed(0)
    made = []
    for number in range(PAIRS):
        # One colour each: noise is nearly the same wherever a tower averages patches.
        colour = torch.randint(0, 256, (3,), generator=colours, dtype=torch.uint8)
        pixels = colour.expand(SIDE, SIDE * (1 + number % 2), 3)
        good, bad = ("Y", "N") if number % 3 else ("N", "Y")
        made.append(
            {
                "id": f"pair-{number}",
                "images": [Image.fromarray(pixels.numpy())],
                "prompt": [{"role": "user", "content": "A?" if number % 2 else "B?"}],
                "chosen": [{"role": "assistant", "content": good}],
                "rejected": [{"role": "assistant", "content": bad}],
            }
        )
    return made


def smolvlm2() -> tuple[Any, Any]:
    _, processor = idefics3()  # takes the same images to the same inputs; SmolVLM2's own needs the package num2words
    return smolvlm_model(processor.tokenizer), processor


TRIED = [replace(family, build=smolvlm2) if family.name == "SmolVLM2" else family for family in FAMILIES]


@pytest.fixture(params=TRIED, ids=attrgetter("name"))
def family(request: pytest.FixtureRequest) -> Family:
    return request.param


@pytest.fixture
def config(configure: Callable[..., TrainConfig]) -> TrainConfig:
    # The reference takes eight pairs a pass, the step three: other shapes, other last bits. The default batch size.
    return configure(tuning="lora", dtype="bfloat16", objective="mdpo", batch_size=32, micro_batch_size=3)


@pytest.fixture
def pairs(family: Family, config: TrainConfig, publish: Callable[..., Any]) -> PairDataset:
    _, processor = family.build()
    return prepare(formats.read(publish(rows()), None, "memory"), processor, config)


def policy_of(family: Family, seed: int, config: TrainConfig, pairs: PairDataset) -> Policy:
    """With logits above 8, where bfloat16 has steps of a sixteenth."""
    model, _ = family.build()
    torch.manual_seed(seed)
    parts = Parts.of(model)
    # A head that is the embeddings (Gemma 3) cannot be made larger: tokens of text would drown those of images.
    tied = parts.head.weight is parts.language.get_input_embeddings().weight
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.3 if tied else 0.15)
        if not tied:
            parts.head.weight.mul_(25 / parts.head.weight.norm(dim=1).mean())
    return make_policy(prepare_tuning(model.to(torch.bfloat16), config), CPU, config, pairs)


def stored(policy: Policy, pairs: PairDataset, config: TrainConfig, folder: Path) -> Reference:
    wider = config.model_copy(update={"micro_batch_size": 8})
    return reference.load_or_compute(policy, pairs, wider, START, folder)


def check(policy: Policy, pairs: PairDataset, ref: Reference, config: TrainConfig) -> Any:
    return check_step_zero(policy, pairs, ref, config, Worker(CPU))


@pytest.mark.parametrize("seed", SEEDS)
def test_training_starts_and_with_a_wrong_reference_it_does_not(
    family: Family, seed: int, config: TrainConfig, pairs: PairDataset, tmp_path: Path
) -> None:
    policy = policy_of(family, seed, config, pairs)
    right = stored(policy, pairs, config, tmp_path / "right")
    step = check(policy, pairs, right, config)
    assert step.logits > 8 and all(difference.nats == 0 for difference in step.same)

    order = [(place + 4) % PAIRS for place in range(PAIRS)]
    moved = replace(pairs, rows=pairs.rows.select(order))  # tokens as they were, images of other rows
    of_other_images = stored(policy, moved, config, tmp_path / "images")

    def shuffled(indices: Sequence[int]) -> Any:
        return right([order[index] for index in indices])

    for wrong in (of_other_images, shuffled):
        with pytest.raises(StepZeroError, match="stored values are of another model"):
            check(policy, pairs, wrong, config)


def test_a_reference_of_another_dtype_is_never_read(config: TrainConfig, pairs: PairDataset, family: Family) -> None:
    in_float32 = config.model_copy(update={"dtype": "float32"})
    assert reference.fingerprint(pairs, START, config) != reference.fingerprint(pairs, START, in_float32)
