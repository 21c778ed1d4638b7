"""ms-swift's data: ``messages`` that end with the chosen answer, and what is worse than it.

What is worse is another answer (``rejected_response``), another conversation (``rejected_messages``) or another image
(``rejected_images``). Another image alone is mDPO's image term without its response term: such a row has no rejected
answer, and reading the chosen one as rejected too would make a pair that prefers nothing. It is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.errors import DataError
from training.formats.row import Message, Preference, answer, parts_by_tags, split, turns, untagged_answer, with_system
from training.formats.schema import Schema, Sign


def convert(row: Mapping[str, Any], images: int) -> Preference:
    messages = turns(row["messages"], "messages")
    if messages[-1]["role"] != "assistant" or len(messages) == 1:
        raise DataError("column messages must hold a prompt and end with the assistant's turn, the chosen answer")
    prompt, chosen, rejected = split(messages, _other(row, messages))
    return Preference(
        parts_by_tags(with_system(prompt, row.get("system")), images, fill=True),
        untagged_answer(chosen, "messages"),
        untagged_answer(rejected, "rejected_messages"),
    )


def _other(row: Mapping[str, Any], messages: list[Message]) -> list[Message]:
    """The whole conversation that is worse."""
    conversation, response = row.get("rejected_messages"), row.get("rejected_response")
    if conversation:
        return turns(conversation, "rejected_messages")
    if response:
        same = len(messages) - 1 if isinstance(response, str) else _last_prompt(messages)
        given = [{"role": "assistant", "content": response}] if isinstance(response, str) else response
        answer(given, "rejected_response")
        return [*messages[:same], *turns(given, "rejected_response")]
    raise DataError(
        "has no rejected answer: rejected_response and rejected_messages are missing or empty. With rejected_images "
        "alone only the image is worse, and DPO and mDPO compare answers too; add rejected_response, or drop the row"
    )


def _last_prompt(messages: list[Message]) -> int:
    """How many messages come before the turns that answer the last of the user."""
    return max((i for i, message in enumerate(messages) if message["role"] == "user"), default=-1) + 1


SCHEMA = Schema(
    name="swift",
    signs=(
        Sign(frozenset({"messages", "rejected_response"})),
        Sign(frozenset({"messages", "rejected_messages"})),
        Sign(frozenset({"messages", "rejected_images"}), lacks=frozenset({"chosen"})),
    ),
    reads=("messages", "rejected_response", "rejected_messages", "system"),
    convert=convert,
    repeats=True,
)
