"""JSON allows a key twice in one object, and readers take the last one: what the first said would be lost."""

from __future__ import annotations

from typing import Any


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """For ``json.loads(text, object_pairs_hook=once)``.

    >>> once([("image", "a.png"), ("prompt", "What?")])
    {'image': 'a.png', 'prompt': 'What?'}

    Raises:
        ValueError: a key comes twice.
    """
    entries = dict(pairs)
    if len(entries) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"the key {next(key for key in keys if keys.count(key) > 1)!r:.80} comes twice; remove one")
    return entries
