"""What a row of an input says is true of its images, checked: a fact that cannot be meant is refused, never guessed."""

from __future__ import annotations

import difflib
import itertools
import math
from collections.abc import Iterable, Mapping
from typing import Any

from pipeline.base.tables import FACTS, OBJECT, REGION
from pipeline.sources.readers.answer import COLUMNS as ANSWERS
from pipeline.sources.readers.answer import NoAnswer, answers
from pipeline.sources.readers.boxes import BadBox, corners
from reward.text.same_text import identity

_FACTS, _OBJECT, _REGION = ([field.name for field in part] for part in (FACTS, OBJECT, REGION))
_MOST = 2**31 - 1


class BadFacts(ValueError):
    """``message`` says what is wrong, ``remedy`` what to do."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(message, remedy)
        self.message, self.remedy = message, remedy


def read(value: Mapping[str, Any]) -> dict[str, Any] | None:
    """``facts`` of a row, with the answers of ``facts`` or of the row; columns of ``pipeline.base.tables.FACTS``.

    An object whose count is zero, or whose box has no area, is not there; a region without an area shows nothing.

    Raises:
        BadFacts: a key is unknown, or a value is not of its type, or the two answers have nothing in common.
    """
    facts = value.get("facts")
    if facts is None:
        facts = {}
    elif not isinstance(facts, Mapping):
        raise BadFacts(f"`facts` is {facts!r:.80}", "see pipeline.base.tables.FACTS for its columns")
    _check(facts, _FACTS, "facts")
    checked: dict[str, Any] = {}
    if (kind := _text(facts, "question_type", "facts")) is not None:
        checked["question_type"] = kind
    if (things := _list(facts, "objects", "facts")) is not None:
        checked["objects"] = [item for i, thing in enumerate(things) for item in _object(thing, f"facts.objects[{i}]")]
    if (regions := _list(facts, "regions", "facts")) is not None:
        checked["regions"] = [area for i, item in enumerate(regions) for area in _region(item, f"facts.regions[{i}]")]
    if (captions := _texts(facts, "captions", "facts")) is not None:
        checked["captions"] = captions
    right = _answers(value, "")
    of_facts = _answers(facts, "facts.")
    if right and of_facts and not set(right) & set(of_facts):
        raise BadFacts(f"the answer is {right[0]!r:.80}, and that of the facts {of_facts[0]!r:.80}", "keep one of them")
    if chosen := right or of_facts:
        checked |= {"answer": chosen[0], **({"answers": list(chosen)} if len(chosen) > 1 else {})}
    return checked or None


def _answers(value: Mapping[str, Any], where: str) -> tuple[str, ...]:
    filled: list[tuple[str, tuple[str, ...]]] = []
    for name in ANSWERS:
        if value.get(name) is None:
            continue
        try:
            if right := answers([value[name]]):
                filled.append((name, right))
        except NoAnswer as error:
            raise BadFacts(f"`{where}{name}`: {error}", "or leave it out where the answer is not known") from error
    for (name, right), (other, others) in itertools.pairwise(filled):
        if not {identity(text) for text in right} & {identity(text) for text in others}:
            raise BadFacts(
                f"`{where}{name}` is {right[0]!r:.80} and `{where}{other}` {others[0]!r:.80}", "keep one of them"
            )
    return filled[0][1] if len(filled) == 1 else answers(value[name] for name, _ in filled)


def _object(thing: Any, where: str) -> list[dict[str, Any]]:
    _check(thing, _OBJECT, where)
    if (name := _text(thing, "name", where)) is None or not name.strip():
        raise BadFacts(f"{where} has no name", "give every object a name, or remove it")
    count = _count(thing.get("count"), where)
    boxes = _list(thing, "boxes", where)
    if boxes:
        seen = [corners for i, box in enumerate(boxes) if (corners := _box(box, f"{where}.boxes[{i}]")) is not None]
        # The boxes are the things that were counted, or nobody counted.
        count = count - (len(boxes) - len(seen)) if count == len(boxes) else count
        if count == 0 or not (seen or count):
            return []
        boxes = seen
    if count == 0:
        return []
    return [{"name": name, "count": count, "attributes": _texts(thing, "attributes", where), "boxes": boxes}]


def _region(region: Any, where: str) -> list[dict[str, Any]]:
    _check(region, _REGION, where)
    phrase, box = _text(region, "phrase", where), region.get("box")
    if box is None:
        return [{"phrase": phrase, "box": None}]
    area = _box(box, f"{where}.box")
    return [] if area is None else [{"phrase": phrase, "box": area}]


def _box(box: Any, where: str) -> list[float] | None:
    try:
        return corners(box)
    except BadBox as error:
        raise BadFacts(f"{where}: {error}", "give [x0, y0, x1, y1] as fractions of the image") from error


def _count(value: Any, where: str) -> int | None:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not (whole or (isinstance(value, float) and value.is_integer())) or not 0 <= value <= _MOST:
        raise BadFacts(f"{where}.count is {value!r:.40}", "give a whole number, or null where nobody counted")
    return int(value)


def _text(value: Mapping[str, Any], name: str, where: str) -> str | None:
    text = value.get(name)
    if text is None or isinstance(text, str):
        return text
    if isinstance(text, float) and math.isnan(text):
        return None
    raise BadFacts(f"{where}.{name} is {text!r:.80}", "give a text")


def _texts(value: Mapping[str, Any], name: str, where: str) -> list[str] | None:
    """A list of texts, or a single one."""
    if isinstance(text := value.get(name), str):
        return [text]
    if (items := _list(value, name, where)) is None:
        return None
    for item in items:
        if not isinstance(item, str | None):
            raise BadFacts(f"{where}.{name} holds {item!r:.80}", "give texts")
    return [item for item in items if item is not None]


def _list(value: Mapping[str, Any], name: str, where: str) -> list[Any] | None:
    items = value.get(name)
    if items is None or isinstance(items, list):
        return items
    raise BadFacts(f"{where}.{name} is {items!r:.80}", "give a list")


def _check(value: Any, keys: list[str], where: str) -> None:
    if not isinstance(value, Mapping):
        raise BadFacts(f"{where} is {value!r:.80}", f"give {{{', '.join(keys)}}}")
    if unknown := sorted(map(str, value.keys() - set(keys))):
        raise BadFacts(f"unknown key {unknown[0]!r} in {where}", _suggestion(unknown[0], keys))


def _suggestion(name: str, keys: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, sorted(keys), n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(keys))}"
