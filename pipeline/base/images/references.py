"""Which key of a row holds its images: one rule for every source and every dataset that is trained on.

The first known key that has a value is read. Null, an empty text and an empty list are no value. What would be lost
without a word is refused: two keys that name different images, a video or a sound, and an image under a key that nobody
reads, known by what it is or by what its key is called.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: What datasets call their images, in the order in which they are read.
IMAGES = (
    *("images", "image", "image_paths", "image_path", "img_paths", "img_path", "imgs", "img"),
    *("image_files", "image_file", "pictures", "picture", "photos", "photo"),
)
#: What no model here looks at.
OTHERS = ("videos", "video", "video_paths", "video_path", "audios", "audio", "audio_paths", "audio_path")
#: Beside images that are embedded under another key, these only say what file they once were.
PATHS = frozenset(name for name in IMAGES if "path" in name or "file" in name)
_RANK = {name: rank for rank, name in enumerate((*OTHERS, *IMAGES))}
_FILE = re.compile(r"[^\r\n]+\.(?:png|jpe?g|jfif|webp|gif|bmp|tiff?|ppm|avif|hei[cf])(?:[?#]\S*)?", re.IGNORECASE)
#: Characters; what is longer is no name of a file, and takes long to be looked through.
_LONGEST_NAME = 4096
#: A text with so many spaces is prose.
_PROSE = 3
#: An image in the text itself: a data URL, or how PNG, JPEG, GIF and WebP begin in base64.
_ENCODED = re.compile(r"(?i:data:image/)|(?:iVBORw0KGgo|/9j/|R0lGOD[dl]h|UklGR)[A-Za-z0-9+/=\s]{24}")
_WORD = re.compile(r"(?:[A-Z]+s?(?![a-z])|[A-Z]?[a-z]+)\d*")
_IMAGE_WORD = re.compile(r"(?:image|img|picture|photo)s?(?:paths?|files?|urls?|uris?|data|bytes|base)?\d*")
#: How keys end that only say something about an image, and how those begin that say whether or how many there are.
_ABOUT = re.compile(
    "ids?|idx|index|keys?|names?|width|height|sizes?|shape|dims|dimensions?|resolution|ratio|counts?|num|number|p?hash|"
    "sha(?:1|256)?|md5|digest|checksum|captions?|descriptions?|titles?|alt|texts?|labels?|class(?:es)?|category|categories|"
    "types?|kind|format|mode|ext|extension|mime|quality|scores?|similarity|sources?|origin|dataset|split|domain|licen[sc]e|"
    "author|credit|date|time|year|info|meta|metadata|tags?|prompts?|questions?|answers?|query|tokens?|positions?|order|"
    "style|topic|language|model|status|error|box(?:es)?|bbox|regions?|objects?"
)
_WHETHER = frozenset({"has", "is", "no", "num", "n", "number", "count", "total", "with", "without"})
#: Keys with values that may be called as an image is.
NAMES = frozenset({"id", "idx", "source", "prompt", "question", "answer", "chosen", "rejected", "facts"})


class Unclear(ValueError):
    """A row whose images cannot be told. ``kind`` is its ``error_type`` in a table of prompts."""

    def __init__(self, kind: str, message: str, remedy: str) -> None:
        super().__init__(kind, message, remedy)
        self.kind = kind
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}; {self.remedy}"


def is_filled(value: Any) -> bool:
    """Whether a value is one.

    >>> [is_filled(value) for value in (None, "", [], {"bytes": None, "path": None}, "a.png", [None])]
    [False, False, False, False, True, True]
    """
    if isinstance(value, Mapping):
        return any(item is not None and item != "" for item in value.values())
    return value is not None and not (isinstance(value, str | list | tuple) and len(value) == 0)


def find(row: Mapping[str, Any]) -> Any:
    """The value of the first filled key of ``IMAGES``; None if there is none.

    >>> find({"images": None, "image": "a.png"}), find({"image": "a.png", "images": ["a.png"]}), find({"images": []})
    ('a.png', ['a.png'], None)

    Raises:
        Unclear: another filled key says something else, there is a video or a sound, or an image under another key.
    """
    keys = sorted((name for name in row if name in _RANK and is_filled(row[name])), key=_RANK.__getitem__)
    if keys and keys[0] in OTHERS:
        raise unread_media(keys[0])
    if not keys:
        for name, value in row.items():
            if is_stray(name, value):
                raise stray(name, value)
        return None
    embedded = {name for name in keys if _is_embedded(row[name])}
    first, *rest = sorted(keys, key=lambda name: bool(embedded) and name in PATHS - embedded)
    for name in rest:
        if not agree(row[first], row[name], name):
            raise two(first, name)
    return row[first]


def agree(first: Any, other: Any, name: str) -> bool:
    """Whether the value of the key ``name`` names no other images than ``first``."""
    return _references(first) == _references(other) or (name in PATHS and _is_embedded(first))


def is_stray(name: str, value: Any) -> bool:
    """Whether the value of a key that nobody reads is an image, so that a row without others must not pass for one of
    text only.

    >>> is_stray("scan", "my cat.jpg"), is_stray("image_url", "https://host/12"), is_stray("image_id", "12")
    (True, True, False)
    """
    return name not in NAMES and (looks_like_images(value) or (_names_images(name) and _may_be_image(value)))


def _names_images(name: str) -> bool:
    words = [word.lower() for word in _WORD.findall(name)]
    if not any(map(_IMAGE_WORD.fullmatch, words)):
        return False
    return _ABOUT.fullmatch(words[-1]) is None and words[0] not in _WHETHER


def _may_be_image(value: Any) -> bool:
    """What is said to be one: a text, unless it is prose, bytes, or a structure or list with such."""
    if isinstance(value, Mapping):
        return any(map(_may_be_image, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_may_be_image, value))
    return isinstance(value, bytes) or (isinstance(value, str) and value.strip() != "" and value.count(" ") < _PROSE)


def looks_like_images(value: Any) -> bool:
    """Whether a value is the name of an image file, an encoded image, or a list of such.

    >>> [looks_like_images(value) for value in ("a/b c.JPG", ["1.png"], {"bytes": b"x", "path": None}, "see a.png.", 3)]
    [True, True, True, False, False]
    """
    if isinstance(value, list | tuple):
        return bool(value) and all(map(looks_like_images, value))
    if isinstance(value, Mapping):
        return isinstance(value.get("bytes"), bytes) or (len(value) < 3 and looks_like_images(value.get("path")))
    if isinstance(value, str):
        # A sentence may end with the name of a file.
        is_name = len(value) <= _LONGEST_NAME and (value.count(" ") < _PROSE or "/" in value)
        return (is_name and _FILE.fullmatch(value) is not None) or _ENCODED.match(value) is not None
    return isinstance(value, bytes)


def two(first: str, other: str) -> Unclear:
    return Unclear(
        "ambiguous_images", f"`{first}` and `{other}` name different images", "keep one of the two, or make them equal"
    )


def unread_media(name: str) -> Unclear:
    return Unclear("unread_media", f"`{name}` is filled, and only images are read", "remove it, or the row")


def stray(name: str, value: Any) -> Unclear:
    shown = repr(value)[:80] if isinstance(value, str) else "images"
    return Unclear(
        "unread_media",
        f"`{name}` holds {shown}, and images are not read from there",
        "rename it to `images`, or remove it for a row of text only",
    )


def _is_embedded(value: Any) -> bool:
    """Whether the images, or some of them, come with their bytes."""
    return any(isinstance(reference, bytes) for reference in _references(value))


def _references(value: Any) -> list[Any]:
    """Bytes, or the path where there are none, of every image."""
    items = value if isinstance(value, list | tuple) else [value]
    return [_reference(item) for item in items]


def _reference(item: Any) -> Any:
    if not isinstance(item, Mapping):
        return item
    return item.get("bytes") if item.get("bytes") is not None else item.get("path")
