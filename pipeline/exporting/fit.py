"""What a format cannot contain of a row: each check gives the reason in words, or None."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.base.conversations import SPEAKERS
from pipeline.base.images.tags import OTHERS, TAG
from pipeline.exporting.published_pairs import PublishedPair

Check = Callable[[PublishedPair], str | None]


def texts(pair: PublishedPair) -> str | None:
    messages = (*pair.prompt, *pair.chosen, *pair.rejected)
    return None if all(isinstance(message["content"], str) for message in messages) else "a content that is no text"


def answers(pair: PublishedPair) -> str | None:
    for side, messages in (("chosen", pair.chosen), ("rejected", pair.rejected)):
        if [message["role"] for message in messages] != ["assistant"]:
            return f"{side} is not one message of the assistant"
    return None


def roles(pair: PublishedPair) -> str | None:
    role = next((message["role"] for message in pair.prompt if message["role"] not in SPEAKERS), None)
    return None if role is None else f"a message of role {role!r:.80}"


def tags(pair: PublishedPair) -> str | None:
    """Every trainer takes them for images, wherever in a text they stand."""
    for message in (*pair.prompt, *pair.chosen, *pair.rejected):
        for tag in (TAG, *OTHERS):
            if tag in message["content"]:
                return f"{tag} in a text, which would stand for {'an image' if tag == TAG else 'something else'}"
    return None


def images_have_a_turn(pair: PublishedPair) -> str | None:
    there = not pair.images or any(message["role"] == "user" for message in pair.prompt)
    return None if there else "images, and no message of the user that they belong to"


def alternate(pair: PublishedPair) -> str | None:
    turns = [message["role"] for message in pair.prompt]
    turns = turns[1:] if turns[:1] == ["system"] else turns
    fits = len(turns) % 2 == 1 and all(role == ("user", "assistant")[at % 2] for at, role in enumerate(turns))
    return None if fits else "turns that do not alternate between user and assistant, from user to user"


def one_image(pair: PublishedPair) -> str | None:
    count = len(pair.images)
    return None if count == 1 else f"{'several images' if count else 'no image'}, where there must be one"


def one_question(pair: PublishedPair) -> str | None:
    turns = [message["role"] for message in pair.prompt]
    if turns == ["user"]:
        return None
    return "a system message" if turns == ["system", "user"] else "several turns, where there must be one question"


def two_answers(pair: PublishedPair) -> str | None:
    chosen, rejected = pair.chosen[0]["content"], pair.rejected[0]["content"]
    return None if rejected and rejected != chosen else "a rejected answer that is empty or the chosen one"


#: What no format here can contain, in an order in which each may rely on the ones before.
EVERYWHERE: tuple[Check, ...] = (answers, roles, texts, tags, images_have_a_turn)
