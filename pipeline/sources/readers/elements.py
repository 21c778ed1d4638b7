"""Large JSON files one element at a time: annotation files have gigabytes, their elements a few kilobytes."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

from pipeline.base.errors import InputError
from pipeline.base.images.image_files import public
from pipeline.base.json_keys import once
from pipeline.sources.readers import files

_SPACE = re.compile(r"[ \t\n\r]*")
_TOKEN = re.compile(r""""(?:[^"\\]|\\.)*"|[\[\]{},]|[^"\[\]{},]+""", re.DOTALL)
_ENDS = frozenset(",:]} \t\n\r")
_DECODER = json.JSONDecoder(object_pairs_hook=once)


class Unreadable(NamedTuple):
    """An element that is JSON and cannot be read: nested too deeply, with too many digits, or with a key twice."""

    reason: str


def elements(path: str, chunk: int = 1 << 20) -> Iterator[tuple[str | None, Any]]:
    """The elements of a JSON array as ``(None, element)``; of an object, ``(key, element)`` for every element
    of a key's array, and ``(key, value)`` where the value is no array.

    ``{"info": {}, "images": [1, 2]}`` gives ``("info", {}), ("images", 1), ("images", 2)``.

    Raises:
        InputError: the file cannot be read, or is not JSON; the message names the line.
    """
    with files.reading(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig") as text:
        yield from _Scanner(path, text, chunk).top()


def array(path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a top-level array, numbered from 1.

    Raises:
        InputError: the file holds something else.
    """
    for number, item in anything(path):
        if not isinstance(item, dict):
            raise _no_list(path, number)
        yield number, item


def anything(path: str) -> Iterator[tuple[int, Any]]:
    """The elements of a top-level array, numbered from 1.

    Raises:
        InputError: the file holds something else.
    """
    for number, (key, item) in enumerate(elements(path), 1):
        if key is not None:
            raise _no_list(path, number)
        yield number, item


def _no_list(path: str, number: int) -> InputError:
    return InputError(f"{public(path)}, item {number}: not a list of objects", "check source.kind and source.path")


class _Scanner:
    """State: the text not yet taken, and how many lines were."""

    def __init__(self, path: str, file: IO[str], chunk: int) -> None:
        self._path, self._file, self._chunk = path, file, chunk
        self._text, self._at, self._line, self._ended = "", 0, 1, False

    def top(self) -> Iterator[tuple[str | None, Any]]:
        first = self._peek()
        if first == "[":
            yield from ((None, item) for item in self._array())
        elif first == "{":
            yield from self._object()
        else:
            raise self._wrong("expected [ or {")
        if self._peek():
            raise self._wrong("text behind the end")

    def _object(self) -> Iterator[tuple[str, Any]]:
        for key in self._parts("{", "}"):
            if not isinstance(key, str):
                raise self._wrong("a key must be a text")
            self._take(":")
            if self._peek() == "[":
                yield from ((key, item) for item in self._array())
            else:
                yield key, self._value()

    def _array(self) -> Iterator[Any]:
        return self._parts("[", "]")

    def _parts(self, opening: str, closing: str) -> Iterator[Any]:
        self._take(opening)
        if self._peek() == closing:
            self._take(closing)
            return
        while True:
            yield self._value()
            if self._peek() == closing:
                self._take(closing)
                return
            self._take(",")

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                # Either the text ends too early, or it is wrong: more of it will tell.
                if not self._more():
                    raise self._wrong(error.msg, error.pos) from error
                continue
            except (RecursionError, ValueError) as error:  # nested without end, thousands of digits, a key twice
                return Unreadable(self._skip(f"{error}"))
            # A number that what was read so far cuts off may be a shorter number: "0." or "1e".
            if self._text[end : end + 1] in _ENDS or not self._more():
                self._at = end
                return value

    def _skip(self, reason: str) -> str:
        """Go behind the value that begins here, without reading what it holds."""
        depth = 0
        while True:
            token = _TOKEN.match(self._text, self._at)
            if token is None or (token.end() == len(self._text) and self._more()):
                if token is None and not self._more():
                    raise self._wrong(reason)
                continue
            if depth == 0 and token[0] in (",", "]", "}"):
                return reason
            self._at = token.end()
            depth += {"[": 1, "{": 1, "]": -1, "}": -1}.get(token[0], 0)
            if depth == 0 and token[0] in ("]", "}"):
                return reason

    def _peek(self) -> str:
        """The next character that is not space; empty at the end."""
        while True:
            match = _SPACE.match(self._text, self._at)
            self._at = match.end() if match else self._at
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more():
                return ""

    def _take(self, character: str) -> None:
        if self._peek() != character:
            raise self._wrong(f"expected {character}")
        self._at += 1

    def _more(self) -> bool:
        if self._ended:
            return False
        self._line += self._text.count("\n", 0, self._at)
        rest = self._text[self._at :]
        # Doubling keeps an element that is longer than a chunk from being parsed over and over.
        added = self._file.read(max(self._chunk, len(rest)))
        self._text, self._at, self._ended = rest + added, 0, not added
        return bool(added)

    def _wrong(self, reason: str, at: int | None = None) -> InputError:
        line = self._line + self._text.count("\n", 0, self._at if at is None else at)
        return InputError(f"{public(self._path)}, line {line}: not valid JSON ({reason})", "download or write it again")
