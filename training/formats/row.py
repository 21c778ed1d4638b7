"""One row's conversation: what the schemas spell in their own ways, as messages whose content is a list of parts.

A message is ``{"role": ..., "content": [{"type": "image", "text": None}, {"type": "text", "text": ...}]}``. Every part
has both keys, so Arrow has nothing to fill in. Errors are ``DataError`` without the row's name, which the reader adds.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from pipeline.base.conversations import ROLES
from pipeline.base.images.tags import TAG, Misplaced, check_others
from training.errors import DataError

Message = dict[str, Any]

_ROLES = {**ROLES, "tool": "tool"}
_IMAGE = {"type": "image", "text": None}
_IMAGE_PARTS = ("image", "image_url")
#: What a turn says beside its content. Templates that show it write it each in their own way.
_REASONING = ("reasoning_content", "reasoning", "thinking")


class Preference(NamedTuple):
    """What a schema makes of a row: the prompt with its images in place, and what was said to it."""

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]


def turns(value: Any, column: str) -> list[Message]:
    """A conversation in ``{role, content}`` or ``{from, value}``; contents stay texts or become lists of parts.

    Raises:
        DataError: it is no such list, a role is unknown, a message holds what has no place in our columns, or a part
            says that it is another image than the one whose place it has.
    """
    if not isinstance(value, list) or not value or not all(isinstance(turn, Mapping) for turn in value):
        raise DataError(
            f"column {column} is not conversational (value {value!r:.80}); "
            'write it as [{"role": "user", "content": "..."}]'
        )
    messages = [_turn(turn, column) for turn in value]
    _check_order(value, column)
    return messages


def question(value: Any, column: str) -> list[Message]:
    """A plain text as the user's turn."""
    if not isinstance(value, str):
        raise DataError(f"column {column} is {value!r:.80}; give a text")
    return turns([{"role": "user", "content": value}], column)


def answer(value: Any, column: str) -> list[Message]:
    """An answer given as a text, as one turn, or as a list of turns that starts with the assistant's."""
    if isinstance(value, str):
        value = {"role": "assistant", "content": value}
    messages = turns([value] if isinstance(value, Mapping) else value, column)
    if messages[0]["role"] != "assistant":
        raise DataError(
            f"column {column} starts with a turn of {messages[0]['role']}, not of the assistant; "
            "leave the prompt out of it"
        )
    return [_as_parts(message, column) for message in messages]


def tools(value: Any) -> str | None:
    """The column ``tools``, a list of tools or the JSON of one, as JSON; None where there are none.

    Keys that Arrow filled with null in a list are taken out; JSON stays as it is.
    """
    if value is None or value in ("", []):
        return None
    try:
        listed = json.loads(value) if isinstance(value, str) else _without_nulls(value)
    except (ValueError, RecursionError) as error:
        raise DataError(f"column tools is no JSON ({error}); give a list of tools, or the JSON of one") from error
    if not isinstance(listed, list) or not all(isinstance(tool, Mapping) for tool in listed):
        raise DataError(f"column tools is {value!r:.80}; give a list of tools, or the JSON of one")
    return json.dumps(listed) if listed else None


def with_system(messages: list[Message], value: Any) -> list[Message]:
    """The conversation with the text of the column ``system`` before it; empty is none."""
    if value is None or value == "":
        return messages
    if not isinstance(value, str):
        raise DataError(f"column system is {value!r:.80}; give a text")
    if messages[0]["role"] != "system":
        return [{"role": "system", "content": value}, *messages]
    if "".join(_texts(messages[0]["content"])) != value:
        raise DataError("has a column system and another system turn in its conversation; keep one of them")
    return messages


def split(chosen: Sequence[Message], rejected: Sequence[Message]) -> tuple[list[Message], list[Message], list[Message]]:
    """Two conversations as (what both start with, the rest of one, the rest of the other).

    The rule is TRL's ``extract_prompt`` over whole messages; unlike there, both rests must be answers. Of a tie, the
    rests are the answers to the last turn of the user.
    """
    same = sum(1 for _ in itertools.takewhile(lambda two: two[0] == two[1], zip(chosen, rejected, strict=False)))
    if same == 0:
        raise DataError("the two conversations do not start with the same message, so they have no prompt in common")
    if same == len(chosen) == len(rejected):
        same = max((at for at, message in enumerate(chosen) if message["role"] == "user"), default=-1) + 1
    if same in (0, len(chosen), len(rejected)):
        raise DataError("of chosen and rejected, one is the start of the other; drop the row")
    return list(chosen[:same]), list(chosen[same:]), list(rejected[same:])


def place_images(messages: Sequence[Message], images: int) -> list[Message]:
    """Parts by TRL's rule: images stand before the first user text, and in lists of parts where they are.

    Where texts have tags, these are the images. TRL leaves them in the text beside its own placeholders, and a
    processor to which they are placeholders then looks for images that are not there.
    """
    if any(TAG in text for message in messages for text in _texts(message["content"])):
        return parts_by_tags(messages, images)
    result = []
    free = images
    for message in messages:
        content = message["content"]
        if isinstance(content, str):
            before = free if message["role"] == "user" else 0
            free -= before
            content = [*(dict(_IMAGE) for _ in range(before)), *_text_parts(content)]
        result.append({"role": message["role"], "content": content})
    _agree(_count(result), images, "image placeholder")
    return result


def parts_by_tags(messages: Sequence[Message], images: int, fill: bool = False) -> list[Message]:
    """Parts by the tags in the texts: each ``<image>`` is an image, and stays where it is.

    With ``fill``, images stand before the first user text if there is no tag.
    """
    result: list[Message] = [
        {"role": message["role"], "content": _parts_of(message["content"])} for message in messages
    ]
    first = next((message for message in result if message["role"] == "user"), None)
    if fill and _count(result) == 0 and first is not None:
        first["content"] = [*(dict(_IMAGE) for _ in range(images)), *first["content"]]
    _agree(_count(result), images, f"{TAG} tag")
    return result


def untagged_answer(value: Any, column: str) -> list[Message]:
    """An ``answer`` that holds no tag, which would be an image."""
    messages = answer(value, column)
    if any(TAG in (part["text"] or "") for message in messages for part in message["content"]):
        raise DataError(f"column {column} holds {TAG}; only the prompt may, so take it out of the answer")
    return messages


def split_tags(text: str) -> list[dict[str, str | None]]:
    """A text as parts. The one line break that joins tags to the start or end of a text belongs to the tags.

    >>> [part["text"] for part in split_tags("<image>\\nWhat is <image> there?")]
    [None, 'What is ', None, ' there?']
    """
    first, *rest = text.split(TAG)
    parts = _text_parts(first)
    for piece in rest:
        leads = not any(part["type"] == "text" for part in parts)
        parts += [dict(_IMAGE), *_text_parts(piece.removeprefix("\n") if leads else piece)]
    last = next((i for i in reversed(range(len(parts))) if parts[i]["type"] == "text"), None)
    if last is not None and last < len(parts) - 1:
        parts[last : last + 1] = _text_parts((parts[last]["text"] or "").removesuffix("\n"))
    return parts


def _turn(turn: Mapping[str, Any], column: str) -> Message:
    role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    if role not in _ROLES:
        roles = ", ".join(_ROLES)
        raise DataError(f"column {column} has a turn of {role!r:.80} (known: {roles}); correct it, or drop the row")
    if turn.get("tool_calls"):
        raise DataError(f"column {column} has tool calls, which cannot be trained on; drop the row")
    for key in _REASONING:
        if turn.get(key):
            raise DataError(
                f"column {column} has a turn with {key}, which is not trained on; write it into the content as the "
                "model does, or drop the row"
            )
    if isinstance(content, list):
        content = [_part(part, column) for part in content]
    elif not isinstance(content, str):
        raise DataError(f"column {column} has a turn whose content is {content!r:.80}; give a text or a list of parts")
    try:
        for text in _texts(content):
            check_others(text)
    except Misplaced as error:
        raise DataError(f"column {column} has {error.reason}") from error
    return {"role": _ROLES[role], "content": content}


def _check_order(value: Sequence[Mapping[str, Any]], column: str) -> None:
    """The k-th image of a conversation is the k-th of the row; an ``index`` may say so, and nothing else."""
    number = 0
    for turn in value:
        content = turn.get("content", turn.get("value"))
        for part in [content] if isinstance(content, str) else content:
            if isinstance(part, Mapping) and part["type"] in _IMAGE_PARTS:
                index = part.get("index")
                if index is not None and index != number:
                    raise DataError(
                        f"column {column} has an image part with index {index!r:.80} in the place of image {number}; "
                        "images are read in the order of their parts, so sort them and leave index out"
                    )
                number += 1
            else:
                number += (_text_of(part) or "").count(TAG)


def _texts(content: Any) -> list[str]:
    return [content] if isinstance(content, str) else [part["text"] for part in content if part["text"] is not None]


def _part(part: Any, column: str) -> dict[str, str | None]:
    kind = part.get("type") if isinstance(part, Mapping) else None
    if kind == "text":
        text = _text_of(part)
        if isinstance(text, str):
            return {"type": "text", "text": text}
    elif kind in _IMAGE_PARTS:
        if any(part.get(key) is not None for key in ("image", "image_url", "url", "path", "value")):
            raise DataError(f"column {column} has an image inside a content; move it to the column images")
        return dict(_IMAGE)
    raise DataError(f"column {column} has a part {part!r:.80}; give {{type: text, text: ...}} or {{type: image}}")


def _text_of(part: Any) -> Any:
    if isinstance(part, str):
        return part
    return part.get("text") if part.get("text") is not None else part.get("value")  # LLaMA-Factory's name for it


def _as_parts(message: Message, column: str) -> Message:
    content = message["content"]
    parts = _text_parts(content) if isinstance(content, str) else content
    if any(part["type"] == "image" for part in parts):
        raise DataError(f"column {column} holds an image; only the prompt may")
    return {"role": message["role"], "content": parts}


def _text_parts(text: str) -> list[dict[str, str | None]]:
    return [{"type": "text", "text": text}] if text else []


def _without_nulls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _parts_of(content: Any) -> list[dict[str, str | None]]:
    if isinstance(content, str):
        return split_tags(content)
    parts = [split_tags(part["text"]) if TAG in (part["text"] or "") else [part] for part in content]
    return list(itertools.chain.from_iterable(parts))


def _count(messages: Sequence[Message]) -> int:
    return sum(part["type"] == "image" for message in messages for part in message["content"])


def _agree(count: int, images: int, what: str) -> None:
    if count != images:
        raise DataError(f"{count} {what}(s) for {images} image(s); make the two numbers equal")
