"""Keep secrets out of what is shown and published: of options by their key, of texts by how they look."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import Any

MASK = "***"
_SECRET = re.compile(r"(key|token|secret|password|passwd|credential|authorization)s?$")
_WORDS = re.compile(r"[^A-Za-z0-9]+|(?<=[a-z0-9])(?=[A-Z])")
# A pattern begins where a word does, or long texts without spaces would take the square of their length.
_NAME = r"(?<![\w.\-])([\w.\-]+)"
_VALUE = r"""("[^"]*"|'[^']*'|[^\s"']+)"""
# `name=value`, `name: value`, `--name value`, and `'name': value`; "the key idea" assigns nothing.
_SURE = re.compile(_NAME + "(=)" + _VALUE)
_MAYBE = tuple(
    re.compile(name + r"(?![\w.\-]+:\s)" + _VALUE)  # of "a: b: c" it is b that has a value
    for name in (_NAME + r"(:[ \t]+)", r"(?<![\w.\-])(--[\w.\-]+)([ \t]+)", r"""(["'][\w.\-]+["'])(:[ \t]*)""")
)
# Without a scheme, `user:password@host`, but neither `mylab.module:Name@1 {}`, a plug-in, nor `2:scenes@1`, a version.
_USER = re.compile(
    r"""(?<!\w)(\w+://)[^/\s'"]+@"""
    r"""|(?<![\w/.+\-])[\w.+\-]+:[^\s/@'":]+@(?=[\w\-])(?![\w.\-]+ \{[}"])(?!v?\d+(?:\.\d+){0,2}(?![\w.\-]))"""
)
_QUERY = re.compile(r"""(?<!\w)(https?://[^\s?'"]*\?)[^\s'"#]+|(?<!\w)(\w+://[^\s?'"]*\?)[^\s'"#]*=[^\s'"#]*""")
_PREFIXES = (
    r"(?<![A-Za-z0-9])(?:(?:hf_|sk_|gsk_|gh[pos]_|npm_|AKIA|ASIA|AIza)(?=[A-Za-z]{0,80}[0-9])[A-Za-z0-9]{%d,}"
    r"|(?:sk-|glpat-|pypi-|xox[abprs]-|github_pat_)(?:[a-z]{1,12}[-_]){0,4}(?=[A-Za-z_]{0,80}[0-9])[A-Za-z0-9_\-]{%d,})"
)
_BY_LOOK = re.compile(_PREFIXES % (8, 8) + r"|(?<![A-Za-z0-9])(?:eyJ|ya29\.)[A-Za-z0-9_\-.]{20,}")
_SURELY = re.compile(_PREFIXES % (16, 16))
_BEARER = re.compile(r"(?i)\b(bearer\s+)\S+")
# What pydantic was given, which may be a secret under any key; its own words say where and what is wrong.
_INPUT = re.compile(r"(\binput_value=).*?(?=, input_type=|\n|$)")
_LONG = re.compile(r"[A-Za-z0-9_+=\-]{20,}")
#: Shorter values of the environment are words that stand in messages anyway.
_SHORTEST = 8


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
    value = _by_look(value)
    for assignment in (_SURE, *_MAYBE):
        value = assignment.sub(_masked_assignment, value)
    return value


def message(value: str) -> str:
    """``text`` for what a command line says, in which ``api_key: unknown key`` assigns nothing; also without the values
    of secret-looking variables of the environment, and without long texts that look drawn by chance.

    >>> message("sample.api_key: unknown key (value 'sk-abc12345'); token: 1f2e3d")
    "sample.api_key: unknown key (value '***'); token: ***"
    """
    value = _INPUT.sub(rf"\g<1>{MASK}", value)
    for secret in sorted(of_environment(), key=len, reverse=True):
        value = value.replace(secret, MASK)
    value = _by_look(value)
    value = _SURE.sub(_masked_assignment, value)
    for assignment in _MAYBE:
        value = assignment.sub(lambda match: _masked_assignment(match) if _is_no_word(match[3]) else match[0], value)
    return _LONG.sub(lambda word: MASK if _is_drawn(word[0]) else word[0], value)


def holds(value: Any) -> bool:
    """Whether a value surely is or holds a secret: a token with a well-known prefix, or a URL with a password.

    >>> holds("hf_aB3aB3aB3aB3aB3aB3"), holds("https://me:pw@host/"), holds("data/hf_datasets_of_2024.jsonl")
    (True, True, False)
    """
    if not isinstance(value, str):
        return False
    if _SURELY.search(value):
        return True
    urls = re.findall(r"""(?<!\w)\w+://[^\s'"]+""", value)
    return any(re.match(r"\w+://[^/\s]*:[^/\s]*@", url) or _SURE.sub(_masked_assignment, url) != url for url in urls)


def suspect_pattern() -> str:
    """A regular expression without look-around, for engines that know none: where it finds nothing, ``holds`` is false,
    and no value of a secret-looking variable of the environment stands.

    >>> re.search(suspect_pattern(), "see hf_aB3aB3aB3aB3aB3aB3") is not None, re.search(suspect_pattern(), "a dog")
    (True, None)
    """
    looks = r"(?:hf_|sk_|gsk_|gh[pos]_|npm_|AKIA|ASIA|AIza|sk-|glpat-|pypi-|xox[abprs]-|github_pat_)[A-Za-z0-9_\-]{16}"
    return "|".join([looks, r"""\w://[^\s'"]*[@=]""", *map(re.escape, of_environment())])


def _by_look(value: str) -> str:
    value = _BEARER.sub(rf"\g<1>{MASK}", value)
    value = _USER.sub(lambda match: f"{match[1] or ''}{MASK}@", value)
    value = _QUERY.sub(lambda parameter: f"{parameter[1] or parameter[2]}{MASK}", value)
    return _BY_LOOK.sub(MASK, value)


def _masked_assignment(match: re.Match[str]) -> str:
    name, sign, value = match.groups()
    if value.rstrip(",.;") == "VALUE" or name == "KeyError":  # as usage says it; what Python calls a missing name
        return match.group()
    number: object = float(value) if value.replace(".", "", 1).isdigit() else value
    return f"{name}{sign}{MASK}" if _is_secret(name, number) else match.group()


def _is_no_word(value: str) -> bool:
    return any(c.isdigit() for c in value) or value[0] in "\"'" or len(value) >= 16


def _is_secret(key: str, value: object) -> bool:
    if value is None or isinstance(value, bool | Mapping):
        return False
    words = [word.lower() for word in _WORDS.split(key) if word]
    secret = [word for word in words if _SECRET.search(word)]
    counts = isinstance(value, int | float) and all(word == "tokens" for word in secret)
    return bool(secret) and not counts


def _is_drawn(value: str) -> bool:
    """Small letters, capitals and digits in a jumble, as in a key; names and paths keep them together, and digests have
    no capitals."""
    kinds = ["digit" if c.isdigit() else "capital" if c.isupper() else "small" if c.islower() else "" for c in value]
    steps = [a != b for a, b in pairwise(kinds) if a and b]
    return {"digit", "capital", "small"} <= set(kinds) and sum(steps) >= 0.4 * len(steps)


def of_environment() -> Iterator[str]:
    """The values of secret-looking variables, but for short ones and names of files."""
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and _is_secret(name, value) and not os.path.exists(value):
            yield value
