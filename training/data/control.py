"""Control tokens of a model in plain texts: in an answer they would end it, or stand for an image that is not there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_MEDIA = ("image_token", "video_token", "audio_token", "boi_token", "eoi_token")


@dataclass(frozen=True, slots=True)
class Control:
    """The control tokens of a processor, as its tokenizer finds them in a text. ``media`` are those of ``every`` that
    stand for an image, a video or a sound."""

    every: re.Pattern[str]
    media: re.Pattern[str]

    @classmethod
    def of(cls, processor: Any) -> Control:
        tokenizer = getattr(processor, "tokenizer", processor)
        added = getattr(tokenizer, "added_tokens_decoder", {}).values()
        media = {token for name in _MEDIA if isinstance(token := getattr(processor, name, None), str) and token}
        every = {*tokenizer.all_special_tokens, *(token.content for token in added if token.special), *media}
        return cls(_any(every), _any(media))

    def without(self, text: str) -> str:
        return self.every.sub("", text)

    def first(self, text: str) -> str | None:
        """The first control token in the text."""
        match = self.every.search(text)
        return match.group() if match else None

    def first_media(self, text: str) -> str | None:
        match = self.media.search(text)
        return match.group() if match else None


def _any(tokens: set[str]) -> re.Pattern[str]:
    """Of tokens that begin alike the longest is found; of none, nothing is."""
    words = sorted((token for token in tokens if token.strip()), key=lambda token: (-len(token), token))
    return re.compile("|".join(map(re.escape, words)) or r"(?!)")
