"""What a model's chat template does with messages: some leave out what they have no place for, and say nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Message = Mapping[str, Any]


def unshown(render: Callable[[list[Message]], str], messages: Sequence[Message], rendered: str) -> str | None:
    """Why a model would not read all of ``messages``, of which ``render`` has made ``rendered``; None where it would.

    A message whose text is not there word for word may have been trimmed or escaped; it is left out where ``rendered``
    does not change with it. The assistant's are not looked at: templates may drop the reasoning of earlier turns.

    >>> users = lambda messages: "".join(m["content"] for m in messages if m["role"] == "user")
    >>> unshown(users, [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi."}], "Hi.")
    "the model's chat template does not show the system message; leave it out, or take another template"
    """
    for index, message in enumerate(messages):
        if message["role"] == "assistant" or all(text.strip() in rendered for text in _texts(message)):
            continue
        if render([*messages[:index], _longer(message), *messages[index + 1 :]]) == rendered:
            role = message["role"]
            remedy = "leave it out, or take another template" if role == "system" else "take another template"
            return f"the model's chat template does not show the {role} message; {remedy}"
    return None


def _texts(message: Message) -> list[str]:
    content = message["content"]
    return [content] if isinstance(content, str) else [part["text"] for part in content if part["type"] == "text"]


def _longer(message: Message) -> Message:
    """The message with a word behind each of its texts."""
    content = message["content"]
    if isinstance(content, str):
        return {**message, "content": f"{content} more"}
    return {
        **message,
        "content": [{**part, "text": f"{part['text']} more"} if part["type"] == "text" else part for part in content],
    }
