"""JSON files that Arrow must not read: nested very deep, or with a null for a row, they end the whole process."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.base.compressed import open_plain, suffix
from pipeline.base.json_keys import once

#: Files of one object a line.
LINES = frozenset({".jsonl", ".ndjson"})
#: No dataset of pairs comes near; Arrow fails in the tens of thousands.
DEEPEST = 500
_CHUNK = 1 << 24
_BEGINS = re.compile(rb"(?:\xef\xbb\xbf)?\s*(?:\{|\[\s*[{\]]|\[\s*\Z)")
_NOTHING = frozenset({b"null", b"NaN", b"Infinity", b"-Infinity"})
_SPACE = re.compile(r"[ \t\r\n]*")
#: What may be half of a surrogate pair, or both.
_HALF = re.compile(r"\\u[dD][89a-fA-F]")
_TOKEN = re.compile(rb'\\.|["\[\]{}]', re.DOTALL)


def refuse(file: Path) -> None:
    """
    Raises:
        ValueError: the JSON file is empty, in UTF-16, nested too deeply, has a key twice or half of a surrogate pair in
            a list, or has no object where a row should be.
        OSError: it cannot be read.
    """
    with open_plain(file) as opened:
        start = opened.read(1 << 16)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ValueError("is in UTF-16; save it as UTF-8")
    if not start.removeprefix(codecs.BOM_UTF8).strip():
        raise ValueError("is empty")
    if not _BEGINS.match(start):
        raise ValueError("does not begin with an object; give a list of objects, or one a line")
    if suffix(file) in LINES and (line := _line_of_nothing(file)) is not None:
        raise ValueError(f"line {line} is no object; remove it")
    if too_deep(file):
        raise ValueError(f"is nested more than {DEEPEST} levels deep; remove the row that is")
    if start.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        _refuse_items(file)


def _refuse_items(file: Path) -> None:
    """Of a list, which is read with another reader than Arrow's. That one sees keys twice and halves of surrogate pairs
    itself; the other takes the last key, and leaves such a half out."""
    try:
        for _ in items(file):
            pass
    except json.JSONDecodeError:
        return  # its reader will say where


def items(file: Path) -> Iterator[Any]:
    """What a JSON file holds, word for word: the items of its list, or one value after the other.

    Raises:
        json.JSONDecodeError: it is no JSON.
        ValueError: it is not in UTF-8, or an item has a key twice or half of a surrogate pair; the item is named.
        OSError: it cannot be read.
    """
    with open_plain(file) as opened:
        text = opened.read().decode("utf-8-sig")
    decoder = json.JSONDecoder(object_pairs_hook=once)
    halves = _HALF.search(text) is not None
    at = _after_space(text, 0)
    listed = text.startswith("[", at)
    if listed:
        at = _after_space(text, at + 1)
    number = 0
    while at < len(text) and not (listed and number == 0 and text[at] == "]"):
        number += 1
        try:
            item, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError:
            raise
        except ValueError as error:
            raise ValueError(f"item {number}: {error}") from error
        if halves and not _is_text(item):
            raise ValueError(
                f"item {number} holds half of a surrogate pair, which is no text; correct it or drop the row"
            )
        yield item
        at = _after_space(text, at)
        if listed:
            if text.startswith("]", at):
                break
            if not text.startswith(",", at):
                raise json.JSONDecodeError("Expecting ',' delimiter", text, at)
            at = _after_space(text, at + 1)


def _is_text(item: Any) -> bool:
    try:
        json.dumps(item, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return at if found is None else found.end()


def too_deep(file: Path) -> bool:
    """Whether lists and objects lie within each other more than ``DEEPEST`` deep."""
    # Brackets in texts are counted first, which costs little; only where that is deep are texts told apart.
    return _at_most(file) > DEEPEST and _exactly(file) > DEEPEST


def _line_of_nothing(file: Path) -> int | None:
    with open_plain(file) as opened:
        return next((number for number, line in enumerate(opened, 1) if line[:64].strip() in _NOTHING), None)


def _at_most(file: Path) -> int:
    deepest = depth = 0
    with open_plain(file) as opened:
        while chunk := opened.read(_CHUNK):
            data = np.frombuffer(chunk, np.uint8)
            steps = ((data == ord("[")) | (data == ord("{"))).astype(np.int32)
            steps -= (data == ord("]")) | (data == ord("}"))
            depths = depth + np.cumsum(steps)
            deepest, depth = max(deepest, int(depths.max())), int(depths[-1])
    return deepest


def _exactly(file: Path) -> int:
    deepest = depth = 0
    in_text, rest = False, b""
    with open_plain(file) as opened:
        while chunk := opened.read(_CHUNK):
            chunk = rest + chunk
            # A backslash at the end belongs to what follows.
            rest = chunk[-1:] if chunk.endswith(b"\\") else b""
            for token in _TOKEN.findall(chunk[: len(chunk) - len(rest)]):
                if token == b'"':
                    in_text = not in_text
                elif not in_text and token in b"[{":
                    depth += 1
                    deepest = max(deepest, depth)
                elif not in_text and token in b"]}":
                    depth -= 1
    return deepest
