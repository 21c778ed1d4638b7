"""What a reward model reads, and who can be asked for its rewards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Conversation:
    """``images`` are encoded files. ``messages`` are (role, text); the last is the response that is judged."""

    images: tuple[bytes, ...]
    messages: tuple[tuple[str, str], ...]


class BadConversation(ValueError):
    """One conversation cannot be read; ``index`` is its place among those that were given."""

    def __init__(self, index: int, reason: str) -> None:
        super().__init__(index, reason)
        self.index, self.reason = index, reason

    def __str__(self) -> str:
        return f"conversation {self.index}: {self.reason}"


class RewardBackend(Protocol):
    """One reward per conversation, raw; None where it does not fit into the model's context.

    Raises ``BadConversation`` for one that cannot be read.
    """

    def rewards(self, conversations: Sequence[Conversation]) -> list[float | None]: ...


def processor_messages(conversation: Conversation) -> list[dict[str, Any]]:
    """Messages as a processor's chat template reads them; images stand before the first text of the user, as in TRL.

    >>> processor_messages(Conversation((b"",), (("user", "what?"), ("assistant", "a sun"))))[0]["content"]
    [{'type': 'image'}, {'type': 'text', 'text': 'what?'}]
    """
    messages: list[dict[str, Any]] = []
    pictures = [{"type": "image"} for _ in conversation.images]
    for role, text in conversation.messages:
        parts: list[dict[str, Any]] = [{"type": "text", "text": text}]
        if role == "user":
            parts, pictures = [*pictures, *parts], []
        messages.append({"role": role, "content": parts})
    return messages


def tokenizer_messages(conversation: Conversation) -> list[dict[str, str]]:
    """Messages as a tokenizer's chat template reads them."""
    return [{"role": role, "content": text} for role, text in conversation.messages]
