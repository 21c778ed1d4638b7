"""JSON in what a model wrote: in a block of code or not, over several lines, or as Python would write it."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from typing import Any

from pipeline.base.json_keys import once

_FENCE = re.compile(r"^\s*```[\w-]*\s*$", re.MULTILINE)
#: Texts; and what Python and JSON write differently: a comma behind the last item, and three words.
_TOKEN = re.compile(
    r'"(?:\\.|[^"\\])*"|\'(?:\\.|[^\'\\\n])*\'|,(?=\s*[\]}])|\b(?:None|True|False)\b',
    re.DOTALL,
)
_WORDS = {",": "", "None": "null", "True": "true", "False": "false"}
#: How deep lists and objects may be nested: far more than anybody asks for, far less than Python can write again.
_DEEPEST = 50
_BETWEEN = re.compile(r"[\s,]*")


def values(answer: str) -> list[Any]:
    """The JSON values that an answer consists of, one behind the other; lines that mark a block of code are passed
    over, and so are commas between values.

    >>> values('```json\\n{"a": 1}\\n{"a": 2,}\\n```'), values("['dog', 'cat']")
    ([{'a': 1}, {'a': 2}], [['dog', 'cat']])

    Raises:
        ValueError: anything else stands there, or an object has one key twice.
    """
    text = _FENCE.sub("", answer)
    try:
        return list(_read(text))
    except ValueError as error:
        plain = _TOKEN.sub(_as_json, text)
        if plain == text:
            raise
        try:
            return list(_read(plain))
        except ValueError:
            raise error from None


def objects(answer: str) -> list[dict[str, Any]]:
    """The same where the answer is to consist of objects, in a list or without.

    Raises:
        ValueError: as ``values``, or a value is no object.
    """
    items = [item for value in values(answer) for item in (value if isinstance(value, list) else [value])]
    for item in items:
        if not isinstance(item, dict):
            raise ValueError(f"no object: {json.dumps(item)[:80]}")
    return items


def _read(text: str) -> Iterator[Any]:
    decoder = json.JSONDecoder(object_pairs_hook=once, parse_constant=_no_number)
    at = _end(text, 0)
    while at < len(text):
        try:
            value, end = decoder.raw_decode(text, at)
            _check_depth(value, _DEEPEST)
        except (ValueError, RecursionError) as error:
            reason = "nested too deep" if isinstance(error, RecursionError) else str(error).partition(": line")[0]
            raise ValueError(f"no JSON: {text[at:].strip().partition(chr(10))[0][:80]!r} ({reason})") from None
        yield value
        at = _end(text, end)


def _check_depth(value: Any, left: int) -> None:
    if not left:
        raise RecursionError
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check_depth(inner, left - 1)


def _end(text: str, at: int) -> int:
    space = _BETWEEN.match(text, at)
    return space.end() if space else at


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def _as_json(token: re.Match[str]) -> str:
    text = token[0]
    if not text.startswith("'"):
        return _WORDS.get(text, text)
    try:
        return json.dumps(ast.literal_eval(text))
    except (ValueError, SyntaxError):
        return text
