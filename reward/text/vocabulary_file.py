"""A vocabulary from a file of the user's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.base.images.image_files import read_regular
from reward.text.object_vocabulary import Vocabulary

SHAPE = 'a JSON file of {"surface form": "object"}, such as {"dog": "dog", "dogs": "dog", "puppy": "dog"}'


def read(path: Path, version: str) -> Vocabulary:
    """``{"surface form": "object"}`` as JSON. The vocabulary is called like the file.

    Raises:
        ValueError: it cannot be read, or is no such mapping; the message names the word.
    """
    try:
        content = json.loads(read_regular(path).decode("utf-8-sig"), object_pairs_hook=_once)
    except OSError as error:
        raise ValueError(f"cannot read the vocabulary {path} ({error.strerror or error}); give {SHAPE}") from error
    except RecursionError as error:
        raise ValueError(f"cannot read the vocabulary {path} (it is nested too deeply); give {SHAPE}") from error
    if not isinstance(content, dict) or not content:
        what = "names no object" if isinstance(content, dict) else f"is a {type(content).__name__}"
        raise ValueError(f"the vocabulary {path} {what}; give {SHAPE}")
    return Vocabulary(path.stem, version, content)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """JSON allows a key twice, and readers take the last one."""
    content: dict[str, Any] = {}
    for key, value in pairs:
        if content.setdefault(key, value) != value:
            raise ValueError(f"{key!r} names both {content[key]!r} and {value!r}; keep one")
    return content
