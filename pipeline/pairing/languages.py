"""What ``reward.text.language`` says of many texts at once.

Texts in plain ASCII are told by array operations over the bytes of all of them, the others one by one. A test holds the
outcome equal to that of ``reward.text.language``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.base import columns
from pipeline.base.columns import Ints
from reward.text import language, words
from reward.text.language import NOTHING, Asked

#: How ``reward.text.language`` takes an ASCII text apart.
_LETTERS = words.table(lambda one: one.casefold() if one.isalpha() else "", above=False)
_IN_LATIN = {
    name: Asked(frozenset({"LATIN"}), name) for name in (None, *language.LANGUAGES)
}  # shared: a million prompts say the same few things


def asked(prompts: Any) -> list[Asked]:
    """``language.asked`` of each of a string array."""
    encoded = prompts.dictionary_encode()
    different = encoded.dictionary
    plain = columns.bools(pc.string_is_ascii(different))
    found = np.empty(len(different), object)
    found[~plain] = [language.asked(text) for text in different.filter(pa.array(~plain)).to_pylist()]
    found[plain] = _in_ascii(different.filter(pa.array(plain)))
    return found[encoded.indices.to_numpy()].tolist()  # type: ignore[no-any-return]


def frequent_words(texts: Any) -> tuple[Ints, Ints]:
    """How many words each of ASCII ``texts`` has, and how many of them are frequent in each of ``language.LANGUAGES``
    (a row per language)."""
    found = words.split(texts, _LETTERS)
    return found.counts, _hits(found)


def _hits(found: words.Words) -> Ints:
    encoded = found.values.dictionary_encode()
    place = encoded.indices.to_numpy()
    hits = np.zeros((len(language.LANGUAGES), found.texts), np.int64)
    for row, name in enumerate(language.LANGUAGES):
        known = columns.bools(pc.is_in(encoded.dictionary, pa.array(sorted(language.frequent(name)))))
        hits[row] = np.bincount(found.text, weights=known[place], minlength=found.texts)
    return hits


def _in_ascii(texts: Any) -> list[Asked]:
    found = words.split(texts, _LETTERS)
    letters = np.bincount(found.text, weights=found.ends - found.starts, minlength=found.texts)
    nothing = columns.bools(pc.match_substring_regex(texts, f"(?i){language.FREE}"))
    nothing |= letters < language.LEAST_LETTERS
    hits = _hits(found)
    second, first = np.sort(hits, axis=0)[-2:]
    told = (first >= language.LEAST_HITS) & (first >= language.AHEAD * second)
    names = [language.LANGUAGES[best] if sure else None for best, sure in zip(hits.argmax(0), told, strict=True)]
    return [NOTHING if none else _IN_LATIN[name] for none, name in zip(nothing.tolist(), names, strict=True)]
