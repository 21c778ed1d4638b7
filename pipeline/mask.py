"""Keep secrets out of what is published: of options by their key, of texts by how they look."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

MASK = "***"
_SECRET = re.compile(r"(key|token|secret|password|passwd|credential|authorization)s?$")
_WORDS = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])")
# `name=value`, `name: value`, and `--name value`; "the key idea" assigns nothing.
_ASSIGNMENTS = tuple(
    re.compile(name + r"""("[^"]*"|'[^']*'|[^\s"']+)""") for name in (r"([\w.\-]+)(=|:[ \t]+)", r"(--[\w.\-]+)([ \t]+)")
)
_IN_URL = re.compile(r"(\w+://)[^/@\s]+@")
_BY_LOOK = re.compile(r"\b(hf_|sk-|ghp_|github_pat_|xox[bap]-|AKIA)[A-Za-z0-9_\-]{8,}")
_BEARER = re.compile(r"(?i)\b(bearer\s+)\S+")


def options(value: Any, key: str = "") -> Any:
    """The same nested options, with the values of secret-looking keys replaced by ``***``.

    A key is secret if one of its words ends in key, token, secret, password or the like. Numbers under ``...tokens``
    are counts and stay.

    >>> options({"api_key": "abc", "max_tokens": 96, "engine": {"hfToken": "x", "headers": ["Bearer abc"]}})
    {'api_key': '***', 'max_tokens': 96, 'engine': {'hfToken': '***', 'headers': ['Bearer ***']}}
    """
    if isinstance(value, Mapping):
        return {
            name: MASK if _is_secret(str(name), inner) else options(inner, str(name)) for name, inner in value.items()
        }
    if isinstance(value, list | tuple):
        return [options(inner, key) for inner in value]
    return text(value) if isinstance(value, str) else value


def text(value: str) -> str:
    """The same text with what looks like a secret replaced: ``key=value``, ``--key value``, URLs, well-known prefixes.

    >>> text("HF_TOKEN=abc run sample.api_key='x y' max_tokens=96 --password hunter2 https://me:pw@host/")
    'HF_TOKEN=*** run sample.api_key=*** max_tokens=96 --password *** https://***@host/'
    """
    value = _BEARER.sub(rf"\g<1>{MASK}", value)
    value = _IN_URL.sub(rf"\g<1>{MASK}@", value)
    value = _BY_LOOK.sub(MASK, value)
    for assignment in _ASSIGNMENTS:
        value = assignment.sub(_masked_assignment, value)
    return value


def _masked_assignment(match: re.Match[str]) -> str:
    name, sign, value = match.groups()
    number: object = float(value) if value.replace(".", "", 1).isdigit() else value
    return f"{name}{sign}{MASK}" if _is_secret(name, number) else match.group()


def _is_secret(key: str, value: object) -> bool:
    if value is None or isinstance(value, bool | Mapping):
        return False
    words = [word.lower() for word in _WORDS.split(key) if word]
    secret = [word for word in words if _SECRET.search(word)]
    counts = isinstance(value, int | float) and all(word == "tokens" for word in secret)
    return bool(secret) and not counts
