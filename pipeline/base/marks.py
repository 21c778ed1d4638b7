"""What a person has decided about single pairs, beside the run: ``marks.jsonl``, which publishing obeys.

One JSON object a line: ``{"id": ..., "mark": "reject", "chosen": TEXT, "rejected": TEXT}``. A pair is known by its
prompt and its two texts, so a mark stays with it however often the run is scored and paired again; a pair that is no
longer made leaves its mark without effect.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pipeline.base import files
from pipeline.base.errors import InputError

FILE = "marks.jsonl"
#: A pair that is accepted is published as it is, which says that somebody has looked at it.
ACCEPT, REJECT, SWAP = "accept", "reject", "swap"
MARKS = (ACCEPT, REJECT, SWAP)


class PairKey(NamedTuple):
    """By what a pair is known: the prompt's id and the two texts as the policy chose them."""

    id: str
    chosen: str
    rejected: str


Marks = dict[PairKey, str]


def read(folder: Path) -> Marks:
    """The marks of a run directory; none where there is no file.

    Raises:
        InputError: a line is not as ``write`` writes it; the message names it.
    """
    path = folder / FILE
    marks: Marks = {}
    try:
        text = files.read_text(path) or ""
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: {error}", "save it as UTF-8") from error
    # Not splitlines(): other programs write characters such as U+2028 into a line as they are.
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            key = PairKey(*(row[name] for name in PairKey._fields))
            if row["mark"] not in MARKS or not all(isinstance(part, str) for part in key):
                raise ValueError(f"mark is none of {', '.join(MARKS)}, or a text is no text")
            "".join(key).encode()  # half of a character is none
        except (KeyError, TypeError, ValueError, RecursionError) as error:
            why = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise InputError(f"{path}, line {number}: {why}", "mend the line, or remove it") from error
        marks[key] = row["mark"]
    return marks


def write(folder: Path, marks: Mapping[PairKey, str]) -> None:
    """Whole or not at all. Without a mark there is no file, as if there had never been one."""
    lines = [
        json.dumps({"id": key.id, "mark": mark, "chosen": key.chosen, "rejected": key.rejected}, ensure_ascii=True)
        for key, mark in sorted(marks.items())
    ]
    if lines:
        files.write_text(folder / FILE, "\n".join(lines) + "\n")
    else:
        files.remove(folder / FILE)


def put(folder: Path, key: PairKey, mark: str | None) -> str | None:
    """Set a mark, or with None take it away; what it was before."""
    with _alone(folder):
        marks = read(folder)
        before = marks.pop(key, None)
        if mark is not None:
            marks[key] = mark
        write(folder, marks)
    return before


@contextlib.contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Two servers of one run would lose each other's marks. The lock is on the folder itself, so no file remains; what
    a bucket or a file system without locks cannot keep apart goes on as it is."""
    if not files.is_local(folder):
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def ids(marks: Mapping[PairKey, str]) -> dict[str, set[str]]:
    """The prompts by the mark of one of their pairs.

    >>> ids({PairKey("a", "x", "y"): "swap"})
    {'swap': {'a'}}
    """
    by_mark: dict[str, set[str]] = {}
    for key, mark in marks.items():
        by_mark.setdefault(mark, set()).add(key.id)
    return by_mark
