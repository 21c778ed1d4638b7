"""Instruction data in LLaVA's layout: ``[{"image": path, "conversations": [{"from": "human", "value": ...}, ...]}]``.

Of every conversation the first question is taken: what follows answers to texts that our models did not write.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.base.conversations import ROLES
from pipeline.base.images import tags
from pipeline.base.images.image_files import public
from pipeline.sources.config import LlavaSource
from pipeline.sources.readers import files, jsonl, record
from pipeline.sources.readers.answer import COLUMNS as ANSWERS
from pipeline.sources.readers.elements import Unreadable, anything
from pipeline.sources.readers.protocol import Entry
from pipeline.sources.readers.roots import Root, root_of


def read(spec: LlavaSource) -> Iterator[Entry]:
    for path in files.expand(spec.path):
        root, name = root_of(spec.root, path, spec.allow_http), files.base_name(path)
        for place, item in items(path):
            source = f"{name}:{place.number}"
            yield from record.attempt(source, _entries, item, place, source, root, spec.use_answers)


def _entries(item: Any, place: record.Place, source: str, root: Root, use_answers: bool) -> Iterator[Entry]:
    item = an_object(item, place)
    if "conversations" not in item:
        raise record.missing("conversations", item, place)
    try:
        prompt, answer = _first(item["conversations"], place)
    except (KeyError, TypeError, AttributeError) as error:
        raise record.BadRow(
            f"{place}: `conversations` is not a list of {{from, value}}", "correct it, or remove the item"
        ) from error
    value = {**without_answers(item), "prompt": with_system(item, prompt), "answer": answer if use_answers else None}
    return record.entries(value, place, source, root)


def with_system(item: Mapping[str, Any], prompt: list[dict[str, str]]) -> list[dict[str, str]]:
    """The prompt behind what the item says beside its conversations for the system, if anything."""
    system = item.get("system")
    if not isinstance(system, str) or not system.strip():
        return prompt
    return [{"role": "system", "content": system}, *prompt]


def without_answers(item: Mapping[str, Any]) -> dict[str, Any]:
    """What an item says besides its conversations. One that names no image is a question of text only."""
    rest = {key: value for key, value in item.items() if key not in ("facts", *ANSWERS)}
    return {"images": None, **rest}


def stamp(spec: LlavaSource) -> list[str]:
    return [files.stamp(path) for path in files.expand(spec.path)]


def items(path: str) -> Iterator[tuple[record.Place, Any]]:
    """The items of a list, or the lines of a ``.jsonl``, each with the place where it stands, for ``an_object``.

    Raises:
        InputError: the file cannot be read or holds something else.
    """
    if path.endswith(".jsonl"):
        for number, line in jsonl.lines(path):
            yield record.Place(public(path), "line", number), line
    else:
        for number, item in anything(path):
            yield record.Place(public(path), "item", number), item


def an_object(item: Any, place: record.Place) -> dict[str, Any]:
    """
    Raises:
        BadRow: it is none.
    """
    if place.unit == "line":
        return jsonl.an_object(item, place)
    if isinstance(item, Unreadable):
        raise record.BadRow(f"{place}: cannot be read ({item.reason})", "correct it, or remove the item")
    if not isinstance(item, dict):
        raise record.BadRow(f"{place}: not an object", "correct it, or remove the item")
    return item


def _first(turns: list[dict[str, str]], place: record.Place) -> tuple[list[dict[str, str]], str | None]:
    """Messages up to the first question, and the answer behind it. Without a question the prompt is empty.

    Raises:
        BadRow: somebody else speaks before it, such as a tool, without whom the answer would not be the same.
    """
    prompt: list[dict[str, str]] = []
    for turn in turns:
        role, text = ROLES.get(turn["from"].lower()), turn["value"]
        asked = any(message["role"] == "user" for message in prompt)
        if role is None:
            known = ", ".join(sorted(ROLES))
            raise record.BadRow(
                f"{place}: `conversations` has a turn from {turn['from']!r:.40}; known are {known}", "remove the item"
            )
        if role == "system":
            prompt.append({"role": "system", "content": text})
        elif role == "user" and not asked:
            prompt.append({"role": "user", "content": tags.tight(text)})
        elif role == "assistant" and asked:
            return prompt, text.strip()
        elif role == "user":
            break
    return prompt, None
