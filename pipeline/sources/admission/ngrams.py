"""Words in a row that two texts share."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from io import TextIOWrapper
from typing import Any

from pipeline.sources.readers import files, record

_WORD = re.compile(r"\w+")


def ngrams(text: str, n: int) -> Iterator[str]:
    """Every ``n`` words in a row, in lower case and without punctuation; a shorter text has none.

    >>> list(ngrams("A dog, a cat.", 3))
    ['a dog a', 'dog a cat']
    """
    words = _WORD.findall(text.lower())
    return (" ".join(words[at : at + n]) for at in range(len(words) - n + 1))


class Benchmark:
    """The n-grams of the texts that training data must not hold."""

    def __init__(self, paths: Iterable[str], n: int) -> None:
        self._n = n
        self._known = {gram for path in paths for text in texts(path) for gram in ngrams(text, n)}

    def overlap(self, candidates: Iterable[str]) -> str | None:
        """The first n-gram that is in the benchmark too, or None."""
        return next((gram for text in candidates for gram in ngrams(text, self._n) if gram in self._known), None)


def texts(path: str) -> Iterator[str]:
    """Lines of a text file; every text in a JSON or JSON lines file, whatever its key.

    Raises:
        InputError: the file cannot be read, or is not JSON.
    """
    with files.reading(path) as file, TextIOWrapper(file, encoding="utf-8-sig") as text:
        if path.endswith(".json"):
            yield from _strings(record.parse(text.read(), path))
        elif path.endswith(".jsonl"):
            for number, line in enumerate(text, 1):
                if not line.isspace():
                    yield from _strings(record.parse(line, record.Place(path, "line", number)))
        else:
            yield from text


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from _strings(inner)
