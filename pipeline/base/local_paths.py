"""Paths of this machine, which say nothing to anybody else: shortened to the name of what they lead to, and found."""

from __future__ import annotations

import getpass
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

#: One from the root or a home folder, of two names at least; what follows a letter or a slash is part of something
#: else, such as a URL.
_PATH = re.compile(
    r"""(?<![\w./:~-])(?:file://|local://)?(?:~[\w.-]*|[A-Za-z]:)?(?:[/\\][^\s/\\'"`,;:()<>|*]+){2,}[/\\]?"""
)
_WHOLE = re.compile(r"(?:file://|local://)|~[\w.-]*[/\\]|[/\\][^/\\\n]+[/\\]|[A-Za-z]:[/\\]")
#: Nobody's own, in whose name many paths begin.
_SHARED = frozenset(map(Path, ("/", "/bin", "/data", "/dev", "/etc", "/home", "/mnt", "/opt", "/tmp", "/usr", "/var")))


def base_name(path: str) -> str:
    """What a path leads to, if it is one of a machine; anything else as it is.

    >>> base_name("/home/me/My photos/a.jsonl"), base_name("llava-hf/llava"), base_name("s3://bucket/data/a.jsonl")
    ('a.jsonl', 'llava-hf/llava', 's3://bucket/data/a.jsonl')
    """
    if not _WHOLE.match(path) or "\n" in path:
        return path
    kind = PureWindowsPath if "\\" in path else PurePosixPath
    return kind(path).name or path


def shorten_paths(text: str) -> str:
    """A message without the folders of its paths.

    >>> shorten_paths("/home/me/a.jsonl, line 3: no object; see https://host/a/b/c")
    'a.jsonl, line 3: no object; see https://host/a/b/c'
    """
    return _PATH.sub(lambda path: base_name(path[0]), text)


def shorten_options(value: Any) -> Any:
    """Nested options, with every value that is or names a path shortened.

    >>> shorten_options({"source": {"path": "/home/me/a.jsonl", "limit": 3}})
    {'source': {'path': 'a.jsonl', 'limit': 3}}
    """
    if isinstance(value, Mapping):
        return {key: shorten_options(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [shorten_options(inner) for inner in value]
    return shorten_paths(base_name(value)) if isinstance(value, str) else value


def is_absolute(path: str) -> bool:
    """Of this machine or another one of its kind.

    >>> is_absolute("/a"), is_absolute("a/b"), is_absolute("https://host/a")
    (True, False, False)
    """
    return path.startswith(("/", "\\", "~", "file://", "local://")) or re.match(r"[A-Za-z]:[/\\]", path) is not None


def own_places(named: Iterable[str]) -> list[str]:
    """Folders that a path of this machine's user begins with: home, the working folder, Python's, and those ``named``.
    Folders that every machine has are left out."""
    folders = [str(Path.home()), os.getcwd(), sys.prefix, *(path for path in named if os.path.isabs(path))]
    places = {os.path.normpath(folder) for folder in folders}
    places |= {os.path.realpath(folder) for folder in places}
    return sorted(place for place in places if Path(place) not in _SHARED)


def own_pattern(places: Iterable[str]) -> str:
    """A regular expression, of RE2 as well, of what a text has if it names a place of this machine: one of ``places``,
    a ``file://`` URL, or a home folder that is called as the user is."""
    folders = [f"{re.escape(place)}(?:[/\\\\\\s'\"`.,;:)\\]}}>]|$)" for place in places]
    user = re.escape(_user())
    homes = [rf"[/\\](?:home|Users)[/\\]{user}(?:[/\\\s'\"`.,;:)\]}}>]|$)"] if user else []
    return (
        rf"(?:^|[^\w./~-])(?:file://|local://)?(?:{'|'.join(folders)})|(?:file|local):///?\S|{'|'.join(homes) or '$^'}"
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""
