"""A picture that its file leaves to the reader gives TRL 1.16 and this trainer the same numbers, and the engine's."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
import torch
from picture_kit import file, noise, turned
from PIL import Image
from tiny_models import FAMILIES, Family, save
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

from pipeline.base.images.pixels import decode, final
from pipeline.engines.protocol import Request
from pipeline.engines.vllm import OpenVllm, VllmEngine
from reward.forward.shareable import enable
from reward.forward.token_logps import Forward, token_logps
from training import formats
from training.config import make_config
from training.data.dataset import prepare
from training.forward.batch import collate

#: Upright it is 64 wide and 96 high: another grid than lying on its side.
PORTRAIT = Image.fromarray(noise(64, 96, seed=5))
PHOTO = turned(6, "JPEG", PORTRAIT, quality=95)
LOGO = file(Image.fromarray(noise(64, 96, seed=6, channels=4)))


@dataclass(frozen=True)
class Both:
    """A family's model and processor, rows as somebody else's dataset has them, and what TRL makes of them."""

    family: Family
    model: Any
    processor: Any
    rows: datasets.Dataset
    folder: str
    theirs: dict[str, Any]


def rows(*images: bytes) -> list[dict[str, Any]]:
    return [
        {
            "id": f"pair-{number}",
            "images": [{"bytes": data, "path": None}],
            "prompt": [{"role": "user", "content": "What is this?"}],
            "chosen": [{"role": "assistant", "content": f"A tall thing {number}."}],
            "rejected": [{"role": "assistant", "content": "A wide one, lying on its side."}],
        }
        for number, data in enumerate(images)
    ]


def compared(family: Family, published: datasets.Dataset, folder: Path) -> Both:
    from transformers import AutoModelForImageTextToText

    _, processor = family.build()
    model = AutoModelForImageTextToText.from_pretrained(save(family, folder / "model"))
    options = DPOConfig(
        output_dir=str(folder), max_length=None, use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[],
        per_device_train_batch_size=2,
    )  # fmt: skip
    trainer = DPOTrainer(model, args=options, train_dataset=published, processing_class=processor)
    columns = trainer.train_dataset.select_columns(["images", "prompt", "chosen", "rejected"])
    theirs = dict(DataCollatorForVisionPreference(processor)([columns[i] for i in range(len(columns))]))
    return Both(family, model.eval(), processor, published, str(folder / "model"), theirs)


@pytest.fixture(
    scope="module",
    params=[family for family in FAMILIES if family.name in ("LLaVA-1.5", "Qwen2.5-VL")],
    ids=attrgetter("name"),
)
def both(request: pytest.FixtureRequest, publish: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Both:
    # The photo as it is, which `datasets` turns for TRL; the logo as it is published, for TRL would see it on black.
    dataset = publish(rows(PHOTO, final(LOGO)))
    return compared(request.param, dataset, tmp_path_factory.mktemp("trl"))


def test_grid_ids_and_every_log_prob_are_trls(both: Both) -> None:
    values = {"model": "none", "dataset": "none", "output_dir": "none"}
    config = make_config({**values, "objective": "dpo", "add_bos": "never"})
    pairs = prepare(formats.read(both.rows, None, "memory"), both.processor, config)
    batch = collate(pairs, range(2), ("chosen", "rejected"), share_prefix=False)
    theirs, model = both.theirs, both.model
    grid = theirs.get("image_grid_thw")
    if grid is not None:
        ours = torch.cat([image["image_grid_thw"] for image in batch.images if image is not None])
        assert grid.tolist() == [[1, 12, 8]] * 4 and ours.tolist() == [[1, 12, 8]] * 2
    labels = theirs["input_ids"].masked_fill(theirs["completion_mask"] == 0, -100)
    inputs = {key: value for key, value in theirs.items() if key != "completion_mask"}
    with torch.no_grad():
        logits = model(**inputs, use_cache=False).logits[:, :-1].log_softmax(-1)
        enable(model)
        layout, entries = token_logps(model, batch, Forward(share_prefix=False))
    told = labels[:, 1:]
    per_row = [logits[i, told[i] != -100].gather(1, told[i, told[i] != -100, None]).flatten() for i in range(4)]
    for row, sequence in enumerate(batch.order.flatten().tolist()):
        ids = [branch for group in batch.groups for branch in group][sequence].ids
        assert theirs["input_ids"][row][theirs["attention_mask"][row].bool()].tolist() == list(ids)
        mine = entries[layout.owners == sequence]
        torch.testing.assert_close(mine, per_row[row], atol=1e-5, rtol=0)


def test_negative_control_lying_on_its_side_it_gives_other_numbers(both: Both) -> None:
    raw = Image.open(io.BytesIO(PHOTO)).convert("RGB")
    seen = [both.processor.image_processor(images=[image], return_tensors="pt") for image in (decode(PHOTO), raw)]
    upright, sideways = (inputs["pixel_values"] for inputs in seen)
    assert upright.shape != sideways.shape or (upright - sideways).abs().max() > 0.1
    if "image_grid_thw" in seen[0]:
        assert seen[0]["image_grid_thw"].tolist() == [[1, 12, 8]] and seen[1]["image_grid_thw"].tolist() == [[1, 8, 12]]


def test_the_engine_is_given_the_same_pixels(both: Both) -> None:
    runner: Any = SimpleNamespace(config=SimpleNamespace(model=both.folder, revision=None))
    engine = VllmEngine(runner, OpenVllm("none"))  # without vLLM: what it is asked is made before
    pairs = formats.read(both.rows, None, "memory")
    for number, data in enumerate((PHOTO, LOGO)):
        wish = Request(f"r{number}", (data,), (("user", "What is this?"),), 0)
        prompt: Any = engine._prompt(wish)
        (shown,) = prompt["multi_modal_data"]["image"]
        trained = decode(pairs[number]["images"][0]["bytes"])
        assert shown.mode == "RGB" and shown.size == (64, 96) and not shown.getexif() and not shown.info
        assert shown.tobytes() == trained.tobytes()
