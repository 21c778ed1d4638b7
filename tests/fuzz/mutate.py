"""Inputs made odd: values of a structure exchanged, dropped and doubled, and bytes flipped, cut and spliced."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

HALF = "\ud83d"
#: Written out only after ``json.dumps``, which would nest as deep itself.
_DEEP, _LONG = "@deep@", "@long@"
ODD: tuple[Any, ...] = (
    None, True, False, 0, -0.0, 1, -1, 2**31, 2**53 + 1, 2**63, -(2**63) - 1, 10**30, 1e308, float("nan"),
    float("inf"), float("-inf"), "", " ", "\0", "a\0b", HALF, f"a{HALF}b", "\ufeff", "\u200b", "\u202e", "\x1b[2J",
    "é", "e\u0301", "<image>", "<image>\n<image>", "<video>", "</s>", "<|im_end|>", "[INST]", "{", "{text}", "null",
    "NaN", "1e400", "-0", "../../etc/passwd", "/dev/null", "http://127.0.0.1:1/a.png", "s3://nobody/x", "tar://x#y",
    "file:///etc", "a" * 5000, "\n", "\r\n", "\u2028", "'", '"', "\\", [], {}, [[]], [None], {"": None}, [{}],
    {"bytes": None, "path": None}, {"bytes": "x", "path": 3}, ["a", 1, None], {"role": "user", "content": None},
    {"from": "human", "value": 3}, {"a": {"a": {"a": {}}}}, _DEEP, _LONG,
)  # fmt: skip


def structure(value: Any, rng: random.Random, times: int = 0) -> Any:
    """A copy of nested lists and objects with some of its values made odd."""
    changed = [copy.deepcopy(value)]
    for _ in range(times or rng.choice((1, 1, 1, 2, 3, 6))):
        places = list(_places(changed))
        holder, key = rng.choice(places[:400])
        rng.choice((_odd, _odd, _odd, _drop, _double, _retyped, _renamed, _swapped))(holder, key, places, rng)
    return changed[0] if changed else None


def text(value: Any) -> bytes:
    """JSON of it, with what no writer of JSON would write."""
    document = json.dumps(value)
    document = document.replace(json.dumps(_DEEP), "[" * 20_000 + "]" * 20_000)
    return document.replace(json.dumps(_LONG), "9" * 5_000).encode()


def data(value: bytes, rng: random.Random, other: bytes = b"") -> bytes:
    """Bytes flipped, cut, put in, doubled, or taken from ``other``."""
    changed = bytearray(value)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(8):
            case 0 if changed:
                changed[min(at, len(changed) - 1)] ^= 1 << rng.randrange(8)
            case 1:
                del changed[at:]
            case 2:
                del changed[at : at + rng.choice((1, 4, 512))]
            case 3:
                changed[at:at] = rng.randbytes(rng.choice((1, 4, 64)))
            case 4:
                changed[at:at] = rng.choice((b"\xff\xfe", b"\xef\xbb\xbf", b"\0", b"\xed\xa0\x80", b"\r", b'"', b"["))
            case 5:
                changed[at:at] = changed[at : at + 512]
            case 6 if other:
                start = rng.randrange(len(other))
                changed[at:at] = other[start : start + rng.choice((16, 1024))]
            case _:
                changed[at : at + 512] = bytes(len(changed[at : at + 512]))
    return bytes(changed)


def written(value: Any, rng: random.Random) -> bytes:
    """A structure as a file: mostly as it is, now and then in another encoding or with bytes made odd."""
    plain = text(value)
    match rng.randrange(10):
        case 0:
            return data(plain, rng)
        case 1:
            return plain.decode().encode(rng.choice(("utf-16", "utf-8-sig", "utf-32", "latin-1")))
        case _:
            return plain


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    keys = range(len(value)) if isinstance(value, list) else list(value) if isinstance(value, dict) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _odd(holder: Any, key: Any, places: Any, rng: random.Random) -> None:
    holder[key] = copy.deepcopy(rng.choice(ODD))


def _drop(holder: Any, key: Any, places: Any, rng: random.Random) -> None:
    del holder[key]
    if isinstance(holder, list) and not holder:
        holder.append(None)


def _double(holder: Any, key: Any, places: Any, rng: random.Random) -> None:
    if isinstance(holder, list):
        holder.insert(key, copy.deepcopy(holder[key]))
    else:
        holder[f"{key}{rng.choice(('', '2', ' '))}"] = copy.deepcopy(holder[key])


def _retyped(holder: Any, key: Any, places: Any, rng: random.Random) -> None:
    value = holder[key]
    holder[key] = rng.choice(([value], {"value": value}, str(value), json.dumps(value, default=str)))


def _renamed(holder: Any, key: Any, places: Any, rng: random.Random) -> None:
    if isinstance(holder, dict):
        holder[rng.choice(("", "x", f"{key}s", HALF, str(key).upper(), "id", "images", "path"))] = holder.pop(key)


def _swapped(holder: Any, key: Any, places: Any, rng: random.Random) -> None:
    other, at = rng.choice(places[:400])
    if isinstance(other, list | dict):
        holder[key] = copy.deepcopy(
            other[at] if at in other or (isinstance(other, list) and at < len(other)) else other
        )
