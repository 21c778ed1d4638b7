"""One row of a file as entries: what all readers with columns share."""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from pipeline.base.errors import InputError
from pipeline.base.images import references
from pipeline.base.json_keys import once
from pipeline.sources.readers import facts, labels
from pipeline.sources.readers.answer import COLUMNS as ANSWERS
from pipeline.sources.readers.protocol import Entry, user_turn
from pipeline.sources.readers.roots import Root

#: All that a row is looked at for.
COLUMNS = (*references.IMAGES, *references.OTHERS, "prompt", "facts", *ANSWERS)


class Place(NamedTuple):
    """Where a row stands; becomes text only when somebody has to be told."""

    file: str
    unit: str
    number: int

    def __str__(self) -> str:
        return f"{self.file}, {self.unit} {self.number}"


#: The kind of a row whose facts are wrong: its layout is that of a prompt, so it says nothing against the recipe.
WRONG_FACTS = "malformed_facts"


class BadRow(InputError):
    """A row that is no prompt. ``kind`` is its ``error_type``; message and remedy make up its ``error``."""

    def __init__(self, message: str, remedy: str = "", kind: str = "malformed_row") -> None:
        super().__init__(message, remedy)
        self.args = (message, remedy, kind)  # what it is made of again in another process
        self.kind = kind

    @property
    def reason(self) -> str:
        return f"{self.message}; {self.remedy}" if self.remedy else self.message


def attempt(source: str, make: Callable[..., Iterable[Entry]], *row: Any) -> Iterator[Entry]:
    """The entries that ``make(*row)`` finds in the row at ``source``; if it raises ``BadRow``, one that says why.

    >>> def make(line):
    ...     raise BadRow("a.jsonl, line 7: not an object", "write one {...} per line")
    >>> [(entry.source, entry.error) for entry in attempt("a.jsonl:7", make, "[]")]
    [('a.jsonl:7', ('malformed_row', 'a.jsonl, line 7: not an object; write one {...} per line'))]
    """
    try:
        made = list(make(*row))
    except BadRow as error:
        made = [Entry([], [], None, source, error=(error.kind, error.reason))]
    except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
        # Rows are as odd as what wrote them: what no rule foresaw is this one's, and no reason to lose the others.
        reason = f"{source}: {type(error).__name__}: {error}; correct the row, or remove it"
        made = [Entry([], [], None, source, error=("malformed_row", reason))]
    yield from made


def entries(
    value: Mapping[str, Any], place: object, source: str, root: Root | None, prompts: Sequence[str] = ()
) -> Iterator[Entry]:
    """The prompt of ``{"images", "prompt", "facts", "answer"}``; without one, each of ``prompts``. Images may have any
    name of ``pipeline.base.images.references.IMAGES``.

    Raises:
        BadRow: a column is missing or holds what it should not.
    """
    images = _images(value, place)
    try:
        checked = facts.read(value)
    except facts.BadFacts as error:
        raise BadRow(f"{place}: {error.message}", error.remedy, WRONG_FACTS) from error
    prompt = value.get("prompt")
    if prompt is None:
        if not prompts and "prompt" in value:
            raise BadRow(f"{place}: `prompt` is null", "give a text or messages, or set source.prompts")
        if not prompts:
            raise missing("prompt", value, place, "or set source.prompts")
        for text in prompts:
            yield Entry(images, user_turn(text), checked, source, root)
    else:
        yield Entry(images, _messages(prompt, place), checked, source, root)


def name_labels(
    value: dict[str, Any], columns: Mapping[str, str], features: Mapping[str, Any], place: object
) -> dict[str, Any]:
    """``value`` with names for class labels. ``columns`` maps its keys to those of ``features``
    (``pipeline.sources.readers.labels``).

    Raises:
        BadRow: a label has no name.
    """
    named = dict(value)
    for name, column in columns.items():
        try:
            named[name] = labels.name_labels(features.get(column), value.get(name))
        except labels.NoLabel as error:
            raise BadRow(f"{place}: `{column}`: {error}", "correct it, or the features of the dataset") from error
    return {name: label for name, label in named.items() if label is not None or name in value}


def values(batch: Any) -> Iterator[dict[str, Any] | BadRow]:
    """The rows of a record batch or table. Of one with a value that Python cannot hold (text that is not UTF-8, a date
    beyond its calendar), what is wrong with it, without its place."""
    try:
        yield from batch.to_pylist()
    except (ValueError, OverflowError, SystemError):
        for at in range(batch.num_rows):
            try:
                row: Any = batch.slice(at, 1).to_pylist()[0]
            except (ValueError, OverflowError, SystemError) as error:
                row = BadRow(f"a value cannot be read ({type(error).__name__}: {error})", "correct it")
            yield row


def missing(column: str, present: Iterable[str], place: object, otherwise: str = "") -> BadRow:
    names = sorted(str(name) for name in present)
    close = difflib.get_close_matches(column, [name for name in names if name not in COLUMNS], n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    remedy = f"{hint}Add the column{', ' + otherwise if otherwise else ''}"
    return BadRow(f"{place}: lacks `{column}`; columns present: {', '.join(names) or 'none'}", remedy)


def parse(text: str, place: object, what: str = "") -> Any:
    """
    Raises:
        BadRow: it is not JSON, or an object has a key twice.
    """
    try:
        return json.loads(text, object_pairs_hook=once)
    except (ValueError, RecursionError) as error:
        raise BadRow(f"{place}: {what}not valid JSON ({error})", "correct it, or remove the row") from error


def _images(value: Mapping[str, Any], place: object) -> list[dict[str, Any]]:
    try:
        images = references.find(value)
    except references.Unclear as error:
        raise BadRow(f"{place}: {error.message}", error.remedy, error.kind) from error
    if images is None:
        if not any(name in value for name in references.IMAGES):
            raise missing("images", value, place, "empty for a prompt without an image")
        return []
    items = images if isinstance(images, list) else [images]
    return [_image(item, place) for item in items]


def _image(item: Any, place: object) -> dict[str, Any]:
    if type(item) is str or isinstance(item, os.PathLike):
        return {"bytes": None, "path": os.fspath(item)}
    if isinstance(item, bytes):
        return {"bytes": item, "path": None}
    if isinstance(item, Mapping) and isinstance(item.get("bytes"), bytes | None):
        data, path = item.get("bytes"), item.get("path")
        if data is not None or isinstance(path, str):
            return {"bytes": data, "path": path}
    raise BadRow(f"{place}: an image is {str(item)[:80]!r}", "give a path, or {bytes, path}")


def _messages(prompt: Any, place: object) -> list[dict[str, str]]:
    if type(prompt) is str:
        return user_turn(prompt)
    if isinstance(prompt, list) and all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in prompt
    ):
        return [{"role": m["role"], "content": m["content"]} for m in prompt]
    raise BadRow(
        f"{place}: `prompt` is {str(prompt)[:80]!r}",
        "give a text, or a list of {role, content} whose contents are texts; images belong into `images`",
    )
