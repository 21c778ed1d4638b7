"""Rewards through transformers, in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from reward.forward.rounding import Difference, judge
from reward.models import shared_prompts
from reward.models.conversation import BadConversation, Conversation
from reward.models.conversation_reader import Reader
from reward.models.network import can_pack, open_network, packed_rewards
from reward.models.reward_checkpoint import Checkpoint
from reward.models.shared_prompts import Answers

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class TransformersRewards:
    """An open reward model. A reward does not depend on what else is in its batch, but for its last digits.

    With ``share_prompt`` images and prompt run once for all answers where the model can and a linear head reads the
    last token; the first conversations are measured both ways. State: whether that has been tried.
    """

    def __init__(
        self, network: nn.Module, reader: Reader, batch_size: int, device: torch.device, share_prompt: bool = True
    ) -> None:
        self.network, self.reader, self.batch_size, self.device = network.to(device), reader, batch_size, device
        self._shares = share_prompt and can_pack(network)
        self._tried = False

    @classmethod
    def open(
        cls, checkpoint: Checkpoint, batch_size: int, dtype: str, device: str, share_prompt: bool = True
    ) -> TransformersRewards:
        """``dtype="auto"`` is float32."""
        where = torch.device(device if device != "auto" else "cuda" if torch.cuda.is_available() else "cpu")
        network, reader, most = open_network(checkpoint, DTYPES["float32" if dtype == "auto" else dtype])
        return cls(network, reader, min(batch_size, most or batch_size), where, share_prompt)

    @torch.inference_mode()
    def rewards(self, conversations: Sequence[Conversation]) -> list[float | None]:
        if self._shares:
            by_place, reason = shared_prompts.measure(
                *(self.reader, conversations, self.batch_size, self._packed),
                lambda places: self._alone(conversations, places),
                None if self._tried else self._difference,
            )
            self._tried |= bool(by_place)
            if reason is not None:
                self._shares = False
                shared_prompts.warn("reward_model", reason)
        else:
            by_place = self._alone(conversations, range(len(conversations)))
        return [by_place.get(place) for place in range(len(conversations))]

    def _packed(self, groups: Sequence[Answers]) -> dict[int, float]:
        # Behind the last token another is read, as if it were to be predicted: that reads the state of the last.
        packed = [(answers, *answers.rows([len(ids) for ids in answers.ids], (0,))) for answers in groups]
        values = packed_rewards(self.network, shared_prompts.batch(self.reader, packed))
        return dict(zip((place for answers in groups for place in answers.places), values.tolist(), strict=True))

    def _alone(self, conversations: Sequence[Conversation], places: Sequence[int]) -> dict[int, float]:
        chosen = [conversations[place] for place in places]
        values: dict[int, float] = {}
        for batch in batches(chosen, self.batch_size):
            try:
                measured = run(self.network, self.reader, chosen, batch, self.device)
            except BadConversation as error:
                raise BadConversation(places[error.index], error.reason) from error
            values |= {places[i]: float(value) for i, value in measured.items()}
        return values

    def _difference(self, packed: Mapping[int, float], alone: Mapping[int, float]) -> str | None:
        largest = max(map(abs, alone.values()), default=0.0)
        gaps = [Difference(f"conversation {place}", 1, packed[place] - value) for place, value in alone.items()]
        dtype = next(parameter.dtype for parameter in self.network.parameters() if parameter.is_floating_point())
        verdict = judge(gaps, largest, dtype) if gaps else None
        if verdict is None or verdict.rounding:
            return None
        return f"rewards were apart by {abs(verdict.worst.nats):.3g}, which rounding does not explain"


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
