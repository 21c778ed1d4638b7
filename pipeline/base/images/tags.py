"""Tags that stand for an image in a text, as LLaVA's data and many others have them.

Whoever samples puts the images before the first text of the user, so a prompt that says this with tags loses nothing
without them. A tag in the middle of a text says that an image stands there; as that cannot be kept, it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

#: Where an image stands in a text.
TAG = "<image>"
#: What stands for something that no model here is shown.
OTHERS = ("<video>", "<audio>", "<bbox>", "<ref-object>")
_ANY = re.compile("|".join(map(re.escape, (TAG, *OTHERS))))
# Tags are joined to the text by one space or line break; more of them belongs to the text.
_LEADING = re.compile(rf"(?:\s*{TAG})+(?:\r?\n| )?")
_TRAILING = re.compile(rf"(?:\s*{TAG[::-1]})+(?:\n\r?| )?")  # of the text from back to front, which takes linear time

Message = Mapping[str, str]


class Misplaced(ValueError):
    """Tags that do not stand for the images of their prompt. ``kind`` is the row's ``error_type``."""

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(kind, reason)
        self.kind = kind
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


def in_front(prompt: Sequence[Message], images: int) -> Sequence[Message]:
    """The messages without their tags, where these stand before (or behind) the user's first text, one for each image.

    >>> in_front([{"role": "user", "content": "<image>\\nWhat is it?"}], 1)
    [{'role': 'user', 'content': 'What is it?'}]

    Raises:
        Misplaced: another number of tags than of images, a tag elsewhere, or one that stands for no image.
    """
    if not any(_ANY.search(message["content"]) for message in prompt):
        return prompt
    for message in prompt:
        check_others(message["content"])
    count = sum(message["content"].count(TAG) for message in prompt)
    if count != images:
        raise Misplaced("image_tags", f"{count} {TAG} tag(s) for {images} image(s); make the two numbers equal")
    first = next((at for at, message in enumerate(prompt) if message["role"] == "user"), None)
    result = []
    for at, message in enumerate(prompt):
        before, text, behind = split(message["content"])
        if TAG in text or ((before or behind) and at != first) or (before and behind):
            raise Misplaced(
                "image_inside_text",
                f"message {at} has an {TAG} tag inside its text; images stand before the user's first text, so put "
                "their tags there, or remove the row",
            )
        result.append({"role": message["role"], "content": text})
    return result


def check_others(text: str) -> None:
    """
    Raises:
        Misplaced: a tag stands for something that is no image.
    """
    for tag in OTHERS:
        if tag in text:
            raise Misplaced("unread_media", f"{tag} in a text; only images are read, so remove the row")


def split(text: str) -> tuple[int, str, int]:
    """How many tags a text begins with, the text without those at either end, and how many it ends with.

    >>> split("<image>\\n<image> What is it?"), split("What is it?\\n<image>"), split("Is <image> red?")
    ((2, 'What is it?', 0), (0, 'What is it?', 1), (0, 'Is <image> red?', 0))
    """
    leading = _LEADING.match(text)
    rest = text[leading.end() :] if leading else text
    trailing = _TRAILING.match(rest[::-1])
    inner = rest[: len(rest) - trailing.end()] if trailing else rest
    return text.count(TAG) - rest.count(TAG), inner, rest.count(TAG) - inner.count(TAG)


def tight(text: str) -> str:
    """A text without white space at its ends and between them and their tags.

    >>> tight(" <image>\\n\\nWhat is it? \\n")
    '<image>What is it?'
    """
    before, inner, behind = split(text)
    return TAG * before + inner.strip() + TAG * behind
