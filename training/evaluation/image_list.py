"""A published list of images, such as the 500 that a paper drew: which of a suite's images it names.

A file has one id or file name a line, or is JSON: a list of them, a list or lines of objects that name their image, or
an object that holds such a list or has the ids for its keys.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from pipeline.base.json_keys import once
from training.errors import DataError
from training.evaluation import benchmark_files

Entry = int | str
Key = TypeVar("Key", int, str)
#: What an object calls its image, the first that it has; and what an object calls a list of them.
_IMAGE_KEYS = ("image_id", "image", "file_name", "filename", "image_path", "image_file", "id")
_LIST_KEYS = ("image_ids", "ids", "images", "image_id", "sentences", "annotations", "data")
#: What stands for a number: digits, in a file of COCO's under the name of its split.
_NUMBER = re.compile(r"(?:COCO_\w+_)?(\d+)(?:\.\w+)?", re.ASCII)
_LAST_NUMBER = re.compile(r"(\d+)$", re.ASCII)


@dataclass(frozen=True)
class ImageList:
    """``source`` names it in messages."""

    entries: tuple[Entry, ...]
    source: str = "the list of ids"

    def among(self, images: Mapping[Key, str], suite: str) -> list[Key]:
        """The images that the list names, each once, in its order. ``images`` has the file of each by what it is known
        by: its number in the annotations, or its file again.

        An entry is that, the file's path, its name with or without the ending, or the number that this name ends in.

        >>> ImageList((9, "b.jpg")).among({4: "b.jpg", 7: "COCO_val2014_000000000009.jpg"}, "chair")
        [7, 4]

        Raises:
            DataError: an entry names none of them, or several.
        """
        by_name: dict[Entry, dict[Key, None]] = {}
        for key, file in images.items():
            for name in _names(file):
                by_name.setdefault(name, {})[key] = None
        meant = {entry: {entry: None} if entry in images else _meant(entry, by_name) for entry in self.entries}
        lost = [entry for entry, keys in meant.items() if not keys]
        if lost:
            raise DataError(
                f"suite {suite}: {len(lost)} of {len(meant)} ids of {self.source} are none of its {len(images)} "
                f"images, the first is {lost[0]!r}; give --ids a list of this suite's images, or --option "
                "SUITE.ids=FILE if it is meant for another suite"
            )
        for entry, keys in meant.items():
            if len(keys) > 1:
                first, second, *_ = keys
                raise DataError(
                    f"suite {suite}: {entry!r} of {self.source} is both {first} and {second}; give the whole name"
                )
        return list(dict.fromkeys(key for keys in meant.values() for key in keys))  # type: ignore[misc]


def of(value: ImageList | Path | str | Sequence[Entry]) -> ImageList:
    """A list that is given, or the one in a file.

    Raises:
        DataError: the file is missing, holds no id, or something that is none.
    """
    if isinstance(value, ImageList):
        return value
    if isinstance(value, list | tuple):
        return ImageList(tuple(_entry(entry, f"item {number} of ids") for number, entry in enumerate(value, 1)))
    if not isinstance(value, str | Path):
        raise DataError(f"ids: {value!r:.80} is neither a file nor a list; give a file with an id or file name a line")
    path = Path(value)
    entries = tuple(dict.fromkeys(_read(path)))
    if not entries:
        raise DataError(f"{path} names no image; give --ids a file with an id or a file name a line, or a JSON list")
    return ImageList(entries, str(path))


def _read(path: Path) -> list[Entry]:
    if not path.exists():
        raise DataError(f"there is no file {path}; give --ids FILE with an id or a file name of an image a line")
    content = benchmark_files.text(path).strip()
    if not content.startswith(("[", "{")):
        return [line.strip() for line in content.splitlines() if line.strip()]
    try:
        rows = _list(json.loads(content, object_pairs_hook=once))
    except (ValueError, RecursionError):  # then it may be an object a line
        rows = [row for _, row in benchmark_files.lines(path)]
    return [_entry(row, f"{path}, item {number}") for number, row in enumerate(rows, 1)]


def _list(value: Any) -> list[Any]:
    if not isinstance(value, dict):
        return list(value)
    inner = next((value[key] for key in _LIST_KEYS if isinstance(value.get(key), list)), None)
    if inner is not None:
        return list(inner)
    return [value] if any(key in value for key in _IMAGE_KEYS) else list(value)


def _entry(row: Any, where: str) -> Entry:
    """
    Raises:
        DataError: it names no image.
    """
    entry = next((row[key] for key in _IMAGE_KEYS if key in row), None) if isinstance(row, dict) else row
    if isinstance(entry, bool) or not isinstance(entry, int | str) or entry == "":
        raise DataError(f"{where}: {row!r:.80} names no image; give its id or file name, or an object with 'image_id'")
    return entry


def _names(image: str) -> set[Entry]:
    path = PurePosixPath(image)
    number = _LAST_NUMBER.search(path.stem)
    return {image, path.name, path.stem, *([int(number[1])] if number else ())}


def _meant(entry: Entry, by_name: Mapping[Entry, dict[Key, None]]) -> dict[Key, None]:
    if isinstance(entry, int):
        return by_name.get(entry, {})
    name = PurePosixPath(entry.replace("\\", "/")).name
    number = _NUMBER.fullmatch(name)
    return by_name.get(entry) or by_name.get(name) or (by_name.get(int(number[1]), {}) if number else {})
