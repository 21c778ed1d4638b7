"""Conversations to tensors, through the model's own chat template and processor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pipeline.base.chat_template import unshown
from pipeline.base.images.pixels import BadImage, decode
from reward.models.conversation import BadConversation, Conversation, processor_messages, tokenizer_messages


@dataclass(frozen=True)
class Inputs:
    """``tensors`` are a model's keyword arguments, padded on the right.

    ``last`` is the place of the last token and ``answer`` of the first one after the prompt (0 where nobody asked),
    int64 [B]. ``kept`` says which conversations these are; the others have more tokens than the model has positions.
    """

    tensors: dict[str, Tensor]
    last: Tensor
    answer: Tensor
    kept: list[int]


class Reader:
    """
    Args:
        processor: a processor, or the tokenizer of a text-only model.
        sees: whether images are read; if not, conversations are rendered without them.
        positions: most tokens of a conversation; None for no limit.
        answers: whether ``Inputs.answer`` is wanted, of a text-only model; it takes another pass of the tokenizer.

    Raises:
        ValueError: there is no chat template.
    """

    def __init__(self, processor: Any, sees: bool, positions: int | None, answers: bool = False) -> None:
        self.processor, self.sees = processor, sees
        self.tokenizer = getattr(processor, "tokenizer", processor)
        self._structured = self.tokenizer is not processor
        self.positions, self.answers = positions, answers
        if getattr(processor, "chat_template", None) is None:
            raise ValueError("the model has no chat template; add the chat_template.jinja it was trained with")
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token  # masked, so that any token does

    def read(self, conversations: Sequence[Conversation]) -> Inputs:
        """Conversations with one and the same number of images.

        Raises:
            BadConversation: an image cannot be decoded, or the template refuses the messages.
        """
        texts = [self.render(i, conversation) for i, conversation in enumerate(conversations)]
        pictures = [self.pictures(i, conversation) for i, conversation in enumerate(conversations)]
        tensors = self.tensors(texts, pictures)
        kept = list(range(len(texts)))
        if self.positions is not None:
            kept = [i for i, length in enumerate(tensors["attention_mask"].sum(1)) if length <= self.positions]
            if not kept:
                nothing = torch.zeros(0, dtype=torch.long)
                return Inputs({}, nothing, nothing, [])
            if len(kept) < len(texts):
                tensors = self.tensors([texts[i] for i in kept], [pictures[i] for i in kept])
        mask = tensors["attention_mask"]
        last = (mask * torch.arange(1, mask.shape[1] + 1)).argmax(dim=1)
        answer = [self._prompt_length(conversations[i]) if self.answers else 0 for i in kept]
        return Inputs(tensors, last, torch.tensor(answer), kept)

    def token_ids(self, conversation: Conversation, index: int = 0) -> list[int]:
        """Of a text-only conversation, whole; ``index`` is what an error calls it."""
        ids: list[int] = self.tokenizer(self.render(index, conversation), add_special_tokens=False)["input_ids"]
        return ids

    def render(self, index: int, conversation: Conversation) -> str:
        """The text of a conversation, with a placeholder for each image.

        Raises:
            BadConversation: the template refuses the messages, or does not show one.
        """
        if not self.sees and conversation.images:
            conversation = Conversation((), conversation.messages)
        messages = processor_messages(conversation) if self._structured else tokenizer_messages(conversation)
        try:
            text: str = self.processor.apply_chat_template(messages, tokenize=False)
            why = unshown(partial(self.processor.apply_chat_template, tokenize=False), messages, text)
        except Exception as error:  # a template may raise what it likes, for instance at a system message
            raise BadConversation(index, f"chat template: {type(error).__name__}: {error}") from error
        if why is not None:
            raise BadConversation(index, why)
        return text

    def pictures(self, index: int, conversation: Conversation) -> list[Any]:
        """The decoded images, none where they are not read.

        Raises:
            BadConversation: one cannot be decoded.
        """
        return [_decode(index, i, data) for i, data in enumerate(conversation.images)] if self.sees else []

    def tensors(self, texts: Sequence[str], pictures: Sequence[list[Any]]) -> dict[str, Tensor]:
        """What the processor makes of rendered texts, each with its images."""
        options: dict[str, Any] = {"padding": True, "padding_side": "right", "return_tensors": "pt"}
        bos = self.tokenizer.bos_token
        # As transformers does: a tokenizer's template is complete, a processor's unless it leaves out the first token.
        if not self._structured or (bos is not None and texts[0].startswith(bos)):
            options["add_special_tokens"] = False
        if any(pictures):
            options["images"] = list(pictures)
        made = self.processor(text=list(texts), **options)
        return {name: value for name, value in made.items() if isinstance(value, Tensor)}

    def _prompt_length(self, conversation: Conversation) -> int:
        """Where the response's turn begins."""
        return len(self.token_ids(Conversation((), conversation.messages[:-1])))


def _decode(conversation: int, index: int, data: bytes) -> Any:
    try:
        return decode(data, None, None)
    except BadImage as error:
        raise BadConversation(conversation, f"image {index}: cannot be decoded ({error})") from error
