"""LLaVA's conversations as JSON, and PDS-DPO's pairs of two: what the keys and the speakers are called.

``{"conversations": [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "chosen"}], "rejected_conversations":
[{"from": "human", "value": "Q"}, {"from": "gpt", "value": "rejected"}]}``
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

#: The conversation that ends with the chosen answer, and the one that ends with the rejected answer.
SIDES = ("conversations", "rejected_conversations")
#: What a message's role is called there.
SPEAKERS = {"user": "human", "assistant": "gpt", "system": "system"}
#: The role of a speaker; some files have roles themselves.
ROLES = {speaker: role for role, speaker in SPEAKERS.items()} | {role: role for role in SPEAKERS}


def messages(turns: Any) -> list[dict[str, str]]:
    """
    >>> messages([{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}])
    [{'role': 'user', 'content': 'Q'}, {'role': 'assistant', 'content': 'A'}]

    Raises:
        ValueError: it is no list of speakers and texts.
    """
    try:
        read = [{"role": ROLES[turn["from"]], "content": turn["value"]} for turn in turns]
    except (KeyError, TypeError) as error:
        raise ValueError("no list of {from, value}") from error
    if not all(isinstance(message["content"], str) for message in read):
        raise ValueError("a value is no text")
    return read


def turns(messages: Iterable[Mapping[str, str]]) -> list[dict[str, str]]:
    """The way back.

    >>> turns([{"role": "user", "content": "Q"}])
    [{'from': 'human', 'value': 'Q'}]
    """
    return [{"from": SPEAKERS[message["role"]], "value": message["content"]} for message in messages]
