"""Annotation files of a benchmark: whole JSON files, JSON lines, and a digest that names their content."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pipeline.base.images.image_files import open_regular, read_text
from pipeline.base.json_keys import once
from pipeline.sources.readers import fields
from training.errors import DataError


def text(path: Path) -> str:
    """
    Raises:
        DataError: the file is missing or not UTF-8.
    """
    try:
        return read_text(path, "utf-8-sig")
    except FileNotFoundError as error:
        raise DataError(f"{path} is missing; put the benchmark's own file there (docs/evaluation.md)") from error
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}; put the benchmark's own file there") from error


def whole(path: Path) -> Any:
    """
    Raises:
        DataError: the file is missing or not JSON.
    """
    try:
        return json.loads(text(path), object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        line = f", line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise DataError(f"{path}{line}: not valid JSON ({error}); download it again") from error


def listed(path: Path) -> list[Any]:
    """
    Raises:
        DataError: the file is missing, or not the JSON of a list.
    """
    rows = whole(path)
    if not isinstance(rows, list):
        raise DataError(f"{path} is no list; give the official file")
    return rows


def lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a JSONL file, numbered from 1; empty lines are skipped.

    Raises:
        DataError: the file is missing, or a line is no JSON object.
    """
    # Not splitlines(): it also breaks at characters such as U+2028, which JSON texts may hold.
    for number, line in enumerate(text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, object_pairs_hook=once)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: not valid JSON ({error}); download it again") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}, line {number}: not a JSON object; give one object a line")
        yield number, row


def take(row: Any, keys: Iterable[str], where: str) -> list[Any]:
    """The values of ``keys``.

    Raises:
        DataError: one is missing; the message names ``where`` and the key.
    """
    if not isinstance(row, dict):
        raise DataError(f"{where}: not a JSON object; give the benchmark's own file")
    missing = [key for key in keys if key not in row]
    if missing:
        raise DataError(f"{where}: key {missing[0]!r} is missing; give the benchmark's own file")
    return [row[key] for key in keys]


def number(value: Any, where: str, key: str) -> int:
    """An id. Digits in a text are one as well.

    >>> number("7", "a.json", "image_id")
    7

    Raises:
        DataError: it is none; the message names ``where`` and the key.
    """
    try:
        return fields.number({key: value}, key)
    except ValueError as error:
        raise DataError(f"{where}: {error}; give the benchmark's own file") from error


def real(value: Any, where: str, key: str) -> float:
    """A length or a place.

    Raises:
        DataError: it is no number; the message names ``where`` and the key.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise DataError(f"{where}: {key} is {value!r:.80}, which is no number; give the benchmark's own file")
    return value


def texts(value: Any, where: str, key: str) -> list[str]:
    """A list of texts; one text is none, or it would be taken for its letters.

    Raises:
        DataError: it is something else; the message names ``where`` and the key.
    """
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise DataError(f"{where}: {key} is {value!r:.80}, which is no list of texts; give the benchmark's own file")
    return value


def image(value: Any, where: str) -> bytes:
    """The bytes of an image that a file holds in base64.

    Raises:
        DataError: it is none; the message names ``where``.
    """
    try:
        return base64.b64decode(re.sub(r"^data:[^,]*,|\s", "", value), validate=True)
    except (TypeError, ValueError) as error:
        raise DataError(f"{where}: 'image' is no base64 ({error}); give the benchmark's own file") from error


def digest(paths: Iterable[Path]) -> str:
    """16 hexadecimal digits that change whenever the content of a file does, or which files there are by name.

    Raises:
        DataError: a file cannot be read.
    """
    total = hashlib.sha256()
    # By content where names are equal: files of one name lie in several folders, which no file system lists in order.
    for name, content in sorted((path.name, _content_digest(path)) for path in paths):
        total.update(f"{name}\0{content}\0".encode())
    return total.hexdigest()[:16]


def _content_digest(path: Path) -> str:
    """
    Raises:
        DataError: the file cannot be read.
    """
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
