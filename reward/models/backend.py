"""Rewards through transformers, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from reward.models.conversation import BadConversation, Conversation
from reward.models.conversation_reader import Reader
from reward.models.network import open_network
from reward.models.reward_checkpoint import Checkpoint

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class TransformersRewards:
    """An open reward model. A reward does not depend on what else is in its batch, but for its last digits."""

    def __init__(self, network: nn.Module, reader: Reader, batch_size: int, device: torch.device) -> None:
        self.network, self.reader, self.batch_size, self.device = network.to(device), reader, batch_size, device

    @classmethod
    def open(cls, checkpoint: Checkpoint, batch_size: int, dtype: str, device: str) -> TransformersRewards:
        """``dtype="auto"`` is bfloat16 on a GPU and float32 on the CPU."""
        where = torch.device(device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
        automatic = torch.bfloat16 if where.type == "cuda" else torch.float32
        network, reader, most = open_network(checkpoint, automatic if dtype == "auto" else DTYPES[dtype])
        return cls(network, reader, min(batch_size, most or batch_size), where)

    @torch.inference_mode()
    def rewards(self, conversations: Sequence[Conversation]) -> list[float | None]:
        by_place: list[float | None] = [None] * len(conversations)
        for batch in batches(conversations, self.batch_size):
            values = run(self.network, self.reader, conversations, batch, self.device)
            for i, value in values.items():
                by_place[i] = float(value)
        return by_place


def batches(conversations: Sequence[Conversation], size: int) -> Iterator[list[int]]:
    """Places of conversations with the same number of images and similar lengths."""

    def by(i: int) -> tuple[int, int]:
        return len(conversations[i].images), sum(len(text) for _, text in conversations[i].messages)

    for _, group in groupby(sorted(range(len(conversations)), key=by), key=lambda i: len(conversations[i].images)):
        places = list(group)
        yield from (places[start : start + size] for start in range(0, len(places), size))


def run(
    network: Any, reader: Reader, conversations: Sequence[Conversation], batch: Sequence[int], device: torch.device
) -> dict[int, Tensor]:
    """The rewards of one batch by place; those that do not fit into the context are left out."""
    try:
        inputs = reader.read([conversations[i] for i in batch])
    except BadConversation as error:
        raise BadConversation(batch[error.index], error.reason) from error
    if not inputs.kept:
        return {}
    dtype = next(parameter.dtype for parameter in network.parameters() if parameter.is_floating_point())
    tensors = {
        name: value.to(device, dtype) if value.is_floating_point() else value.to(device)
        for name, value in inputs.tensors.items()
    }
    values = network(tensors, inputs.last.to(device), inputs.answer.to(device))
    return {batch[i]: value for i, value in zip(inputs.kept, values, strict=True)}
