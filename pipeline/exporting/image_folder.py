"""Images as files, each once: their names are digests of their content."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from pipeline.base.images.tags import TAG
from pipeline.exporting.published_pairs import Message, PublishedPair

FOLDER = "images"
#: How the files that ``pipeline.base.images.pixels.final`` gives begin.
_SUFFIXES = ((b"\x89PNG", ".png"), (b"\xff\xd8", ".jpg"), (b"RIFF", ".webp"))


def file_name(data: bytes) -> str:
    """What an image is called: the same for the same bytes."""
    suffix = next((suffix for start, suffix in _SUFFIXES if data.startswith(start)), ".bin")
    return f"{hashlib.sha256(data).hexdigest()[:32]}{suffix}"


class ImageFolder:
    """``images/`` below a new folder. State: ``count``, the files that are there."""

    def __init__(self, parent: Path) -> None:
        self._parent = parent
        self.count = 0

    def keep(self, pair: PublishedPair) -> list[str]:
        """Write the images that are not there yet; all their paths, relative to the parent."""
        return [self._keep(data) for data in pair.files()]

    def _keep(self, data: bytes) -> str:
        name = f"{FOLDER}/{file_name(data)}"
        path = self._parent / name
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
            self.count += 1
        return name


def with_tags(prompt: Sequence[Message], images: int, joint: str = "") -> list[Message]:
    """The prompt with one tag an image before the first text of the user, and ``joint`` behind each tag.

    Readers take one line break behind tags for a joint, so a text that begins with white space gets one.

    >>> with_tags([{"role": "user", "content": "Which?"}], 2), with_tags([{"role": "user", "content": " Which?"}], 1)
    ([{'role': 'user', 'content': '<image><image>Which?'}], [{'role': 'user', 'content': '<image>\\n Which?'}])
    """
    first = next((at for at, message in enumerate(prompt) if message["role"] == "user"), None)
    if first is None or not images:
        return list(prompt)
    text = prompt[first]["content"]
    end = "\n" if not joint and text[:1].isspace() else ""
    content = f"{(TAG + joint) * images}{end}{text}"
    return [*prompt[:first], {**prompt[first], "content": content}, *prompt[first + 1 :]]
