"""vLLM's pooling gives the rewards that transformers gives."""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest
from tiny_models import gemma3, llava, random, text_sizes, tokenizer

from pipeline.engines.vllm_rewards import OpenVllmRewards, supports
from reward.models.backend import TransformersRewards
from reward.models.conversation import Conversation
from reward.models.reward_checkpoint import HEAD_FILE, read_checkpoint

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}"
)


def conversation(answer: str) -> Conversation:
    return Conversation((), (("user", "What is this?"), ("assistant", answer)))


CONVERSATIONS = [conversation(answer) for answer in ("a sun", "", "a boat on the sea, and a sun", "x " * 400, "a sun.")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A text-only sequence classifier with one label."""
    from transformers import LlamaConfig, LlamaForSequenceClassification

    path: Path = tmp_path_factory.mktemp("classifier")
    words = tokenizer(["<|im_start|>"], bos="<s>", eos="<|im_end|>", adds_bos=True)
    words.chat_template = TEMPLATE
    random(LlamaForSequenceClassification, LlamaConfig(**text_sizes(words), num_labels=1)).save_pretrained(path)
    words.save_pretrained(path)
    return path


def ask(path: Path) -> list[float | None]:
    """In a process of its own: the end of an engine takes vLLM's process groups with it."""
    os.environ["VLLM_LOGGING_LEVEL"] = "ERROR"
    from vllm import ModelRegistry

    # A class that was never seen is inspected by another Python, 20 s, unless it is registered as a class.
    name = "LlamaForCausalLM"  # what vLLM turns into the classifier
    ModelRegistry.register_model(name, ModelRegistry.models[name].load_model_cls())
    rewards = OpenVllmRewards(str(path))()
    try:
        return rewards.rewards(CONVERSATIONS)
    finally:
        rewards.close()


def test_vllm_and_transformers_give_the_same_rewards(folder: Path) -> None:
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        rewards = pool.submit(ask, folder).result()
    expected = TransformersRewards.open(read_checkpoint(str(folder)), 2, "float32", "cpu").rewards(CONVERSATIONS)
    assert rewards[3] is None and expected[3] is None  # longer than the context
    assert [reward for reward in rewards if reward is not None] == pytest.approx(
        [reward for reward in expected if reward is not None], abs=1e-3
    )
    assert len({round(reward, 2) for reward in rewards if reward is not None}) == 4


def test_only_text_classifiers_are_left_to_vllm(folder: Path, tmp_path: Path) -> None:
    assert supports(read_checkpoint(str(folder)))
    import torch
    from safetensors.torch import save_file
    from transformers import Gemma3ForSequenceClassification

    model, _ = gemma3()
    model.config.num_labels = 1
    random(Gemma3ForSequenceClassification, model.config).save_pretrained(tmp_path / "gemma")
    assert not supports(read_checkpoint(str(tmp_path / "gemma")))
    llava()[0].save_pretrained(tmp_path / "llava")
    save_file({"weight": torch.zeros(1, 64), "bias": torch.zeros(1)}, tmp_path / "llava" / HEAD_FILE)
    assert not supports(read_checkpoint(str(tmp_path / "llava")))
