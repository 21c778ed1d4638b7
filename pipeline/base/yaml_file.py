"""YAML as plain values, for every file and override that a user writes: small, without surprises, or a named error."""

from __future__ import annotations

import reprlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from pipeline.base import secrets
from pipeline.base.errors import shorten

#: Of a file, in bytes; of its values, once aliases are replaced by what they stand for; of lists within lists.
MOST_BYTES, MOST_VALUES, DEEPEST = 1_000_000, 20_000, 32
#: Problems that are listed, and characters of them all together; of more, only the number is said.
MOST_PROBLEMS, MOST_CHARACTERS = 20, 1_700
_LONGEST_NAME = 120
_MERGE = "tag:yaml.org,2002:merge"


class BadYaml(ValueError):
    """Text that is not read, and why, in one line without the text itself: it may hold a secret."""


def file(path: Path) -> Any:
    """
    Raises:
        BadYaml: it is not UTF-8, too large, or not what ``text`` reads.
        OSError: there is no such file, or it cannot be read.
    """
    with path.open("rb") as opened:
        data = opened.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise BadYaml(f"more than {MOST_BYTES} bytes")
    try:
        decoded = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadYaml(f"byte {error.start} is not UTF-8; save the file as UTF-8") from error
    return text(decoded)


def text(value: str) -> Any:
    """The value of one YAML document.

    >>> text("{a: [1, null], b: 2020-01-31}")
    {'a': [1, None], 'b': datetime.date(2020, 1, 31)}

    Raises:
        BadYaml: it is not YAML, names a key twice, is nested too deeply, or holds what is no text or number.
    """
    loader: Any = None
    try:
        loader = yaml.SafeLoader(value)
        node = loader.get_single_node()
        if node is None:
            return None
        _check(loader, node)
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        raise BadYaml(_reason(error)) from None
    except RecursionError:
        raise BadYaml(f"nested more than {DEEPEST} levels deep") from None
    except BadYaml:
        raise
    except Exception as error:  # at odd escapes and numbers the library raises ValueError, IndexError and others
        at = f"line {loader.line + 1}: " if loader is not None else ""
        raise BadYaml(f"{at}{secrets.message(' '.join(str(error).split())[:200])}") from None
    finally:
        if loader is not None:
            loader.dispose()


def excerpt(value: Any, key: str = "") -> str:
    """A value as an error shows it: bounded, and without secrets.

    >>> excerpt("x" * 999), excerpt("abc", "api_key"), excerpt({"password": "abc"})
    ("'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx...xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'", '***', "{'password': ***}")
    """
    if (
        key
        and secrets.options({key: "text" if isinstance(value, Mapping | list | tuple) else value})[key] == secrets.MASK
    ):
        return secrets.MASK
    return secrets.message(_SHOWN.repr(value))


def name(key: Any) -> str:
    """A key as an error shows it."""
    shown_key = key.encode("utf-8", "backslashreplace").decode() if isinstance(key, str) else excerpt(key)
    return shown_key if len(shown_key) <= _LONGEST_NAME else f"{shown_key[:_LONGEST_NAME]}..."


def bullets(problems: list[str]) -> list[str]:
    """The first of many problems, and how many there are more."""
    kept: list[str] = []
    for problem in problems[:MOST_PROBLEMS]:
        if kept and sum(map(len, kept)) + len(problem) > MOST_CHARACTERS:
            break
        kept.append(shorten(problem, MOST_CHARACTERS))
    more = len(problems) - len(kept)
    return [*kept, f"and {more} more"] if more else kept


def secret_keys(value: Any, key: str = "") -> Iterator[str]:
    """The keys whose values surely are or hold a secret; they would be kept with the run."""
    if isinstance(value, Mapping):
        for inner, part in value.items():
            yield from secret_keys(part, f"{key}.{name(inner)}" if key else name(inner))
    elif isinstance(value, list | tuple):
        for number, part in enumerate(value):
            yield from secret_keys(part, f"{key}[{number}]")
    elif secrets.holds(value):
        what = "holds what looks like a password or access key, which would be kept with the run"
        yield f"{key}: {what}; leave it in the environment"


def expectation(problem: Mapping[str, object]) -> str:
    """What is wrong, by one of pydantic's errors, in the words of YAML instead of Python's.

    >>> expectation({"type": "tuple_type", "msg": "Input should be a valid tuple"})
    'should be a list, such as [1, 2]'
    """
    kind = _IN_YAML.get(str(problem["type"]))
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"should be {kind}" if kind else f"{message[:1].lower()}{message[1:]}"


#: What the library says of common slips, in other words.
_PLAINER = {
    r"found character '\t'": "a tab where spaces belong",
    "expected <block end>": "indented neither like the lines before nor as a part of them",
}
_LIST, _GROUP = "a list, such as [1, 2]", "a group of keys, such as {name: 1}"
_IN_YAML = {
    **dict.fromkeys(("tuple_type", "list_type", "set_type", "frozen_set_type", "iterable_type"), _LIST),
    **dict.fromkeys(("dict_type", "mapping_type", "model_type", "model_attributes_type"), _GROUP),
}


class _Shown(reprlib.Repr):
    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxdict, self.maxstring, self.maxother = 3, 6, 70, 70
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = 8

    def repr_str(self, x: str, level: int) -> str:
        return super().repr_str(secrets.message(x[:1000]) if len(x) <= 1000 else x, level)

    def repr_int(self, x: int, level: int) -> str:
        # Python writes no number of more digits than it reads.
        return super().repr_int(x, level) if abs(x) < 10**40 else f"a number of {x.bit_length()} bits"


_SHOWN = _Shown()


def _check(loader: Any, root: Any) -> None:
    """Before anything is made of it: an alias is read once and stands for as much as what it names."""
    sizes: dict[int, int] = {}
    open_: set[int] = set()

    def size(node: Any, depth: int) -> int:
        if id(node) in open_:
            raise BadYaml(f"{_place(node)}: an alias holds itself")
        if depth > DEEPEST:
            raise BadYaml(f"{_place(node)}: nested more than {DEEPEST} levels deep")
        if id(node) in sizes:
            return sizes[id(node)]
        open_.add(id(node))
        total = 1
        if isinstance(node, yaml.ScalarNode):
            if node.tag != _MERGE:
                _check_scalar(loader, node)
        elif isinstance(node, yaml.MappingNode):
            _check_keys(node)
            for key, value in node.value:
                total += size(key, depth + 1) + size(value, depth + 1)
        else:
            total += sum(size(item, depth + 1) for item in node.value)
        if total > MOST_VALUES:
            raise BadYaml(f"{_place(node)}: holds more than {MOST_VALUES} values, aliases counted as what they name")
        open_.discard(id(node))
        sizes[id(node)] = total
        return total

    size(root, 0)


def _check_scalar(loader: Any, node: Any) -> None:
    if any(c == "\0" or "\ud800" <= c <= "\udfff" for c in node.value):
        raise BadYaml(f"{_place(node)}: a text with a NUL or half of a surrogate pair")
    try:
        loader.construct_object(node)
    except (ValueError, OverflowError, IndexError, KeyError, AttributeError) as error:
        reason = " ".join(str(error).split())[:100]
        raise BadYaml(
            f"{_place(node)}: {excerpt(node.value)} cannot be read ({reason}); quote it if it is a text"
        ) from None


def _check_keys(node: Any) -> None:
    seen: set[tuple[str, str]] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
            if (key.tag, key.value) in seen:
                raise BadYaml(f"{_place(key)}: the key {name(key.value)} comes twice; remove one")
            seen.add((key.tag, key.value))


def _place(node: Any) -> str:
    return f"line {node.start_mark.line + 1}, column {node.start_mark.column + 1}"


def _reason(error: yaml.YAMLError) -> str:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    at = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
    if isinstance(error, yaml.reader.ReaderError):
        return f"position {error.position}: the character {error.character!r:.20} is not allowed"
    what = str(getattr(error, "problem", None) or getattr(error, "context", None) or "not readable")
    what = next((plain for sign, plain in _PLAINER.items() if sign in what), what)
    return f"{at}{secrets.message(' '.join(str(what).split())[:200])}"
