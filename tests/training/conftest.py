"""A LLaVA of 70 thousand random parameters, and eight preference pairs about coloured squares."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from PIL import Image, ImageDraw

from training import formats
from training.config import TrainConfig, make_config
from training.data.dataset import prepare
from training.data.pairs import PairDataset

TEMPLATE = (
    "{% for message in messages %}<{{ message['role'] }}>"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}"
    "{% if message['role'] == 'assistant' %}</s>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
COLOURS = ("red", "green", "blue", "white", "black", "yellow", "purple", "orange")
WORDS = ("what", "is", "this", "a", "square", "describe", "it", "the", "on", "in", "and", "nothing", *COLOURS)


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # the same order of additions in every run


@pytest.fixture(scope="session")
def processor() -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import CLIPImageProcessor, LlavaProcessor, PreTrainedTokenizerFast

    special = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "<user>", "<assistant>"]
    # ByteLevel writes a leading space as U+0120.
    words = [*special, *WORDS, *(f"\u0120{word}" for word in WORDS)]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(special)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    size = {"height": 32, "width": 32}
    image_processor = CLIPImageProcessor(size=size, crop_size=size, do_center_crop=False)
    return LlavaProcessor(
        image_processor=image_processor,
        tokenizer=fast,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=TEMPLATE,
    )


@pytest.fixture(scope="session")
def make_model(processor: Any) -> Callable[..., Any]:
    def make(seed: int = 0) -> Any:
        from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

        torch.manual_seed(seed)
        vision = CLIPVisionConfig(
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            image_size=32,
            patch_size=16,
            projection_dim=32,
        )
        text = LlamaConfig(
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
        config = LlavaConfig(
            vision_config=vision, text_config=text, image_token_id=processor.image_token_id, image_seq_length=4
        )
        return LlavaForConditionalGeneration(config).eval()

    return make


@pytest.fixture(scope="session")
def model_folder(make_model: Callable[..., Any], processor: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pipeline.base.export import save_for_vllm

    return save_for_vllm(make_model(), processor, tmp_path_factory.mktemp("base") / "model")


def picture(index: int) -> Image.Image:
    """A square of the row's colour; size and place differ from row to row."""
    image = Image.new("RGB", (40 + index, 36), "grey")
    ImageDraw.Draw(image).rectangle((4 + index, 3, 20 + index, 20), fill=COLOURS[index % len(COLOURS)])
    return image


def preference_rows(count: int = 8) -> list[dict[str, Any]]:
    rows = []
    for i in range(count):
        right, wrong = COLOURS[i % len(COLOURS)], COLOURS[(i + 3) % len(COLOURS)]
        question = "what is this" if i % 2 else "describe it and the square"
        rows.append(
            {
                "id": f"pair-{i}",
                "images": [picture(i)],
                "prompt": [{"role": "user", "content": question}],
                "chosen": [{"role": "assistant", "content": f"this is a {right} square"}],
                "rejected": [{"role": "assistant", "content": f"a {wrong} square" + " and nothing" * (i % 3)}],
            }
        )
    return rows


def as_dataset(rows: list[dict[str, Any]]) -> datasets.Dataset:
    message = [{"role": datasets.Value("string"), "content": datasets.Value("string")}]
    features = {
        "id": datasets.Value("string"),
        "images": datasets.List(datasets.Image()),
        "prompt": message,
        "chosen": message,
        "rejected": message,
    }
    return datasets.Dataset.from_list(rows, features=datasets.Features(features))


@pytest.fixture(scope="session")
def draw() -> Callable[[int], Image.Image]:
    return picture


@pytest.fixture
def rows() -> list[dict[str, Any]]:
    """Eight fresh rows, free to be damaged."""
    return preference_rows()


@pytest.fixture(scope="session")
def publish() -> Callable[[list[dict[str, Any]]], datasets.Dataset]:
    """Rows to a dataset with the published columns."""
    return as_dataset


@pytest.fixture(scope="session")
def pairs(processor: Any) -> PairDataset:
    """The eight rows, tokenised for mDPO."""
    return prepare(formats.read(as_dataset(preference_rows()), None, "memory"), processor, a_config())


@pytest.fixture(scope="session")
def dataset_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("published") / "dataset"
    as_dataset(preference_rows()).save_to_disk(str(folder))
    return folder


def a_config(**changes: Any) -> TrainConfig:
    """A configuration for code that opens neither model nor dataset."""
    return make_config({"model": "none", "dataset": "none", "output_dir": "none", **changes})


@pytest.fixture
def configure(model_folder: Path, dataset_folder: Path, tmp_path: Path) -> Callable[..., TrainConfig]:
    """A configuration on the tiny model and dataset; keyword arguments replace its values."""

    def configure(**changes: Any) -> TrainConfig:
        values = {
            "model": str(model_folder),
            "dataset": str(dataset_folder),
            "output_dir": tmp_path / "run",
            "objective": "mdpo",
            "tuning": "full",
            "learning_rate": 1e-3,
            "epochs": 2,
            "batch_size": 3,
            "micro_batch_size": 2,
            "logging_steps": 1,
            "save_steps": 100,
        }
        return make_config({**values, **changes})

    return configure
