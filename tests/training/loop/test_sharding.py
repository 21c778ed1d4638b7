"""What FSDP splits: the language model and nothing else; and tensors put together and placed again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.tensor import DTensor

from pipeline.base.errors import ConfigError
from training.config import make_config
from training.errors import ModelError
from training.loop.sharding import clip, is_sharded, like, shard, whole
from training.loop.worker import Worker

ALONE = Worker(torch.device("cpu"))


@pytest.fixture(scope="module")
def group() -> Iterator[None]:
    """A process group of one: that of an engine in this process, where a test before has started it, or our own."""
    ours = not dist.is_initialized()
    if ours:
        dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    assert dist.get_world_size() == 1
    yield
    if ours:
        dist.destroy_process_group()


def test_the_language_model_is_split_and_tower_and_projector_stay_whole(
    group: None, make_model: Callable[..., Any]
) -> None:
    model = make_model()
    names = [name for name, _ in model.named_parameters()]
    shard(model, ALONE, torch.float32)
    assert [name for name, _ in model.named_parameters()] == names
    for name, parameter in model.named_parameters():
        language = "language_model" in name or name.startswith("lm_head")
        assert isinstance(parameter, DTensor) == language, name


def test_tied_embeddings_stay_whole(group: None, make_model: Callable[..., Any]) -> None:
    model = make_model()
    model.lm_head.weight = model.model.language_model.embed_tokens.weight
    shard(model, ALONE, torch.float32)
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight
    plain = {name for name, value in model.named_parameters() if not isinstance(value, DTensor)}
    assert {name for name in plain if "language_model" in name} == {"model.language_model.embed_tokens.weight"}


def test_a_model_of_another_build_is_refused(group: None) -> None:
    with pytest.raises(ModelError, match=r"Linear is not built of .*; use sharding=ddp"):
        shard(nn.Linear(2, 2), ALONE, torch.float32)


def test_whole_and_like_are_inverse(group: None, make_model: Callable[..., Any]) -> None:
    model = make_model()
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    shard(model, ALONE, torch.float32)
    parameters = dict(model.named_parameters())
    assert is_sharded(parameters) and not is_sharded(before)
    for name, parameter in parameters.items():
        full = whole(parameter)
        assert type(full) is torch.Tensor and torch.equal(full, before[name])
        placed = like(full, parameter)
        assert isinstance(placed, DTensor) == isinstance(parameter, DTensor)
        assert torch.equal(whole(placed), before[name])


def test_split_and_whole_gradients_are_clipped_by_their_joint_norm(group: None, make_model: Callable[..., Any]) -> None:
    model, plain = make_model(), make_model()
    shard(model, ALONE, torch.float32)
    generator = torch.Generator().manual_seed(0)
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        theirs.grad = torch.randn(theirs.shape, generator=generator)
        mine.grad = like(theirs.grad.clone(), mine)
    expected = nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
    torch.testing.assert_close(clip(model.parameters(), 1.0), expected)
    for mine, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert mine.grad is not None and theirs.grad is not None
        torch.testing.assert_close(whole(mine.grad), theirs.grad)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"quantization": "nf4", "tuning": "lora"}, "quantization=nf4 cannot be split; set sharding=ddp"),
        ({"cache_reference": False, "tuning": "full"}, "set cache_reference=true, or tuning=lora"),
    ],
)
def test_what_cannot_be_split_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_config({"model": "m", "dataset": "d", "output_dir": "o", "sharding": "fsdp", **values})
