"""The id of a prompt: which images it shows, then what all of it says.

Prompts about the same images begin alike, so that they lie together wherever rows are sorted by id: an engine that has
just decoded an image and run its tower finds it in its caches again. What is drawn by chance hashes a whole id; its
beginning is chance among images and not among prompts.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence

#: So many hexadecimal digits are the images', or the prompt's own where it has none. Images that begin alike by chance
#: lie together too, which is no harm.
IMAGES = 8
#: The rest tells prompts apart: 96 bits of the images and of every message.
CONTENT = 24
LENGTH = IMAGES + CONTENT
_encode = json.JSONEncoder(ensure_ascii=False).encode  # dumps() with options builds a new one for every call


def prompt_id(digests: Iterable[bytes], prompt: Sequence[Mapping[str, str]]) -> str:
    """A hash of what the model sees: digests of the images in order, then role and content of every message.

    >>> ids = [prompt_id([b"an image"], [{"role": "user", "content": text}]) for text in ("Is it red?", "Is it big?")]
    >>> ids
    ['061e743e28be36f61adf5bbfc3c58195', '061e743eb5c575a5ae0a982f07ff2524']
    """
    images = b"".join(digests)
    content = _hash(images + _encode([[m["role"], m["content"]] for m in prompt]).encode(), CONTENT)
    return (_hash(images, IMAGES) if images else content[:IMAGES]) + content


def failed_id(place: str, number: int) -> str:
    """The id of a row of which nothing is known but where it stands: the ``number``-th to fail there."""
    content = _hash(f"failed\0{place}\0{number}".encode("utf-8", "surrogatepass"), CONTENT)
    return content[:IMAGES] + content


def content_of(row_id: str) -> str:
    """The part of an id that tells the prompt from all others; all of an id in runs of before the images came first."""
    return row_id[-CONTENT:]


def _hash(data: bytes, digits: int) -> str:
    return hashlib.blake2b(data, digest_size=digits // 2).hexdigest()
