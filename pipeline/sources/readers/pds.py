"""Preference pairs in the layout of PDS-DPO (``pipeline.base.conversations``), the same up to the last turn.

As a source it gives the prompts: what both conversations begin with. The answers are for ``sources.given_stage``.
Answers are taken as they are, the empty ones too: what is wrong with them is for the gates to say.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pipeline.base.conversations import ROLES, SIDES, messages
from pipeline.base.errors import InputError
from pipeline.base.images import tags
from pipeline.sources.config import PdsSource
from pipeline.sources.readers import files, llava, record
from pipeline.sources.readers.protocol import Entry
from pipeline.sources.readers.roots import Root, root_of


class PairItem(NamedTuple):
    """One item of a file. ``row`` is what it says of its images, ``source`` what the prompts table calls it by."""

    row: Mapping[str, Any]
    prompt: list[dict[str, str]]
    chosen: str
    rejected: str
    source: str


def read(spec: PdsSource) -> Iterator[Entry]:
    for path in _paths(spec):
        root = root_of(spec.root, path, spec.allow_http)
        name = files.base_name(path)
        for place, value in llava.items(path):
            yield from record.attempt(f"{name}:{place.number}", _entries, value, place, name, root, spec.prompts)


def _entries(value: Any, place: record.Place, name: str, root: Root, prompts: Sequence[str]) -> Iterator[Entry]:
    item = _item(value, place, name)
    return record.entries({**item.row, "prompt": item.prompt}, place, item.source, root, prompts)


def answers(spec: PdsSource) -> Iterator[tuple[str, str, str]]:
    """(what the prompts table calls the item by, chosen answer, rejected answer) of every item that is not malformed:
    the prompts table says of each why it failed.

    Raises:
        InputError: a file cannot be read, or is damaged as a whole.
    """
    for path in _paths(spec):
        name = files.base_name(path)
        for place, value in llava.items(path):
            with contextlib.suppress(record.BadRow):
                item = _item(value, place, name)
                yield item.source, item.chosen, item.rejected


def stamp(spec: PdsSource) -> list[str]:
    return [files.stamp(path) for path in _paths(spec)]


def _paths(spec: PdsSource) -> list[str]:
    """
    Raises:
        InputError: two files have one name, by which the rows are told apart.
    """
    paths = files.expand(spec.path)
    names: dict[str, str] = {}
    for path in paths:
        if (other := names.setdefault(files.base_name(path), path)) != path:
            raise InputError(f"source.path: {other} and {path} have the same name", "rename one of them")
    return paths


def _item(value: Any, place: record.Place, name: str) -> PairItem:
    """
    Raises:
        BadRow: it is no pair of conversations, or an answer is no text.
    """
    item = llava.an_object(value, place)
    chosen, rejected = (_turns(item, side, place) for side in SIDES)
    if _before_answer(chosen) != _before_answer(rejected):
        raise record.BadRow(
            f"{place}: the two conversations differ before the last turn",
            "let them begin with the same turns, or remove the item",
        )
    source = f"{name}:{place.number}"
    good, bad = (_answer(turns, side, place) for turns, side in zip((chosen, rejected), SIDES, strict=True))
    return PairItem(llava.without_answers(item), llava.with_system(item, chosen[:-1]), good, bad, source)


def _answer(turns: list[dict[str, str]], side: str, place: record.Place) -> str:
    text = turns[-1]["content"]
    try:
        text.encode()
    except UnicodeEncodeError as error:  # JSON may hold it, and no table can
        raise record.BadRow(
            f"{place}: the answer of `{side}` has half of a surrogate pair at character {error.start}, and is no text",
            "correct it, or remove the item",
        ) from error
    return text


def _before_answer(turns: list[dict[str, str]]) -> list[tuple[str, str]]:
    """What comes before the answer, whether the images' tags are written or not."""
    return [(turn["role"], tags.split(turn["content"])[1]) for turn in turns[:-1]]


def _turns(item: Mapping[str, Any], side: str, place: record.Place) -> list[dict[str, str]]:
    """The messages of one conversation; the last is the assistant's."""
    if side not in item:
        raise record.missing(side, item, place)
    try:
        turns = messages(item[side])
    except ValueError as error:
        raise _layout_error(side, place) from error
    if not turns or turns[-1]["role"] != "assistant":
        raise _layout_error(side, place)
    return turns


def _layout_error(side: str, place: record.Place) -> record.BadRow:
    return record.BadRow(
        f"{place}: `{side}` is not a list of {{from, value}} that ends with an answer of gpt",
        f"`from` is one of {', '.join(ROLES)}; correct it, or remove the item",
    )
