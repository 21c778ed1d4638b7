"""What the gates of ``reward.gates`` say of many texts at once.

Almost every text is good and in plain ASCII. A few array operations find the ones that a gate might stop, with room to
spare, and only these are looked at one by one. A test holds the outcome equal to the gates' own.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.base import columns
from pipeline.base.columns import Bools, Ints
from pipeline.pairing import languages
from pipeline.pairing.config import Pair
from reward import gates
from reward.text import language, words
from reward.text.identity import identity
from reward.text.language import Asked

#: How ``gates.normalised`` takes an ASCII text apart.
_WORD = words.table(
    lambda one: "" if one.isspace() or unicodedata.category(one).startswith(("P", "Cc")) else one.casefold(), above=True
)
#: What an ASCII text holds whose ``identity`` may be more than its words; a superset of what makes it so.
_MEANT = (
    r"[%#&@/\\*_`()\[\]{}]|\.[0-9]|[0-9][!\"']|!=|(?:^|\s)![A-Za-z0-9]|\b[A-Za-z][!\"']|[0-9][^\sA-Za-z0-9][0-9]|"
    r"(?:^|[^A-Za-z])-|-(?:[^A-Za-z]|$)|\b[A-Za-z]-[A-Za-z]\b|\$\s+[0-9]"
)
#: What an ASCII text holds that a gate may stop; a superset of what it does stop.
_LEAK = r"<|\[/?[A-Z]|(?:^|\n)\s*##|(?i:assistant|gpt|user|human|question)(?:\s*:|\n)"
_REFUSAL = (
    r"(?i)^[\W_]*(?:i\b|im\b|so |very |really |truly |sorry|my apol|apologies|unfortunately|as\s+an?\b|no\s|you\s|"
    r"it\s+(?:seems|looks|appears)|there(?:\s+is|'s)\s+no\b|sure\b|okay\b|please|could\s|can\s|lo\s|disculp|desculp|"
    r"sinto|es\s+tut|tut\s|entschuld|je\s|mi\s)"
)
_OPEN = r"(?:\b(?:the|and|or|but|an|a|because|whose)|[,(\[{-])\s*$"
#: From this many words on a text may be told to be in another language, or to break off.
_LEAST_LANGUAGE, _LEAST_CUT = 20, gates.LEAST_CUT
_PRIME, _MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9)


@dataclass(frozen=True)
class Texts:
    """Of every text: a number that those of equal ``identity`` share, how many words it has, ``gates.repeats``, and
    whether it has characters beyond ASCII."""

    texts: Any
    code: Ints
    words: Ints
    repeats: Ints
    foreign: Bools
    parts: _Words = field(repr=False)

    @classmethod
    def of(cls, texts: Any) -> Texts:
        """``texts`` is a string array."""
        foreign = ~columns.bools(pc.fill_null(pc.string_is_ascii(texts), True))
        ascii_or_normalised = texts
        if foreign.any():
            normalised = [gates.normalised(text) for text in texts.filter(pa.array(foreign)).to_pylist()]
            ascii_or_normalised = pc.replace_with_mask(texts, pa.array(foreign), pa.array(normalised, pa.string()))
        found = words.split(ascii_or_normalised, _WORD)
        meant = foreign | columns.bools(pc.match_substring_regex(texts, _MEANT))
        same = found.joined()
        if meant.any():
            own = [identity(text) for text in texts.filter(pa.array(meant)).to_pylist()]
            same = pc.replace_with_mask(same, pa.array(meant), pa.array(own, pa.string()))
        code = same.dictionary_encode().indices.to_numpy()
        parts = _Words.of(found)
        return cls(texts, code, found.counts, parts.repeats(len(texts)), foreign, parts)

    def rank(self, at: Ints) -> Ints:
        """The order of some of the texts as they are written, by code point."""
        ranks: Ints = pc.rank(self.texts.take(pa.array(at)), tiebreaker="dense").to_numpy()
        return ranks

    def stopped(self, finish_reasons: Any, asked: Sequence[Asked], row: Ints, policy: Pair) -> Ints:
        """For each text the place in ``gates.GATES`` of the gate that stops it, or -1.

        ``finish_reasons`` is a string array; ``row`` says to which of ``asked`` a text belongs.
        """
        skip = policy.gates.skip
        cut = columns.bools(pc.equal(finish_reasons, "length")) & ("cut_off" not in skip)
        result = np.full(len(row), -1)
        # The last that is said holds: as ``gates.stopped`` asks, from the last gate to the first.
        result[cut] = gates.GATES.index("cut_off")
        if "repetition" not in skip:
            result[self.repeats > policy.max_repeated] = gates.GATES.index("repetition")
        result[self.words < policy.min_words] = gates.GATES.index("too_short")
        result[self.words == 0] = gates.GATES.index("empty")
        suspects = np.flatnonzero(self._suspects(asked, row, policy) & (self.words > 0))
        told: dict[tuple[Any, ...], int] = {}
        texts = self.texts.take(pa.array(suspects)).to_pylist()
        ends = cut[suspects].tolist()
        for at, text, end, of in zip(suspects.tolist(), texts, ends, row[suspects].tolist(), strict=True):
            key = (text, end, asked[of])
            if key not in told:
                told[key] = _one(*key, policy)
            result[at] = told[key]
        return result

    def _suspects(self, asked: Sequence[Asked], row: Ints, policy: Pair) -> Bools:
        on = policy.gates
        found = self.foreign.copy()
        for wanted, pattern, least in (
            (on.leaked_template, _LEAK, 0),
            (on.refusal, _REFUSAL, 0),
            (on.cut_off, _OPEN, _LEAST_CUT),
        ):
            if wanted:
                found |= columns.bools(pc.match_substring_regex(self.texts, pattern)) & (self.words >= least)
        if on.repetition:
            found |= self.parts.again(len(found), gates.LONGEST_PHRASE + 1, policy.max_repeated)
            found[self.parts.text[self.parts.length >= gates.LONG_WORD]] = True
        if on.wrong_script:
            found |= np.array([bool(one.scripts) and "LATIN" not in one.scripts for one in asked], bool)[row]
        if on.wrong_language:
            found |= self._other_language(asked, row)
        return found

    def _other_language(self, asked: Sequence[Asked], row: Ints) -> Bools:
        """Which ASCII texts have too few of the frequent words of the language asked for, or a quotation or code (which
        do not count)."""
        of_row = np.array([language.LANGUAGES.index(one.language) if one.language else -1 for one in asked], np.int64)
        own = of_row[row] if len(asked) else np.zeros(0, np.int64)
        at = np.flatnonzero((own >= 0) & (self.words >= _LEAST_LANGUAGE // 2) & ~self.foreign)
        result = np.zeros(len(row), bool)
        if not len(at):
            return result
        some = self.texts.take(pa.array(at))
        counts, hits = languages.frequent_words(some)
        mine = hits[own[at], np.arange(len(at))]
        hits[own[at], np.arange(len(at))] = 0
        other = hits.max(axis=0)
        few = (counts >= _LEAST_LANGUAGE) & (5 * other >= counts) & (other > 3 * mine)
        result[at] = few | columns.bools(pc.match_substring_regex(some, '["`]'))
        return result


def asked(prompts: Any, policy: Pair) -> list[Asked]:
    """What the prompts (a column of conversations) say about the language of their answers."""
    if not policy.gates.read_prompts:
        return [language.NOTHING] * len(prompts)
    return languages.asked(pa.array(questions(prompts), pa.string()))


def questions(prompts: Any) -> list[str]:
    """What the user says in each of a column of conversations."""
    sizes = columns.counts(prompts)
    roles, contents = (columns.items(prompts, name).to_pylist() for name in ("role", "content"))
    first = columns.starts(sizes).tolist()
    return [
        "\n".join(contents[i] or "" for i in range(begin, end) if roles[i] == "user") for begin, end in pairwise(first)
    ]


def _one(text: str, cut: bool, of: Asked, policy: Pair) -> int:
    name = gates.stopped(
        text,
        "length" if cut else None,
        of,
        min_words=policy.min_words,
        max_repeated=policy.max_repeated,
        skip=policy.gates.skip,
    )
    return -1 if name is None else gates.GATES.index(name)


@dataclass(frozen=True)
class _Words:
    """The words of all texts that have a letter or a digit, in order: a number that equal words share, the index of the
    text, and how many bytes long they are."""

    code: Ints
    text: Ints
    length: Ints

    @classmethod
    def of(cls, found: words.Words) -> _Words:
        encoded = found.values.dictionary_encode()
        code, text, length = encoded.indices.to_numpy(), found.text, found.ends - found.starts
        signs = ~columns.bools(pc.match_substring_regex(encoded.dictionary, "[A-Za-z0-9]"))
        if signs.any():
            signs[signs] = [not gates.is_word(one) for one in encoded.dictionary.filter(pa.array(signs)).to_pylist()]
            code, text, length = (values[~signs[encoded.indices.to_numpy()]] for values in (code, text, length))
        return cls(code, text, length)

    def repeats(self, texts: int) -> Ints:
        """``gates.repeats`` of each text."""
        code, text = self.code, self.text
        most = np.minimum(np.bincount(text, minlength=texts), 1)
        for size in range(1, gates.LONGEST_PHRASE + 1):
            again = np.flatnonzero((code[size:] == code[:-size]) & (text[size:] == text[:-size])) + size
            begins = np.flatnonzero(np.diff(again, prepend=-2) != 1)  # of words that equal the one `size` before
            runs = np.diff(begins, append=len(again))
            np.maximum.at(most, text[again[begins]], runs // size + 1)
        return most

    def again(self, texts: int, size: int, most: int) -> Bools:
        """Which texts say some phrase of ``size`` words more than ``most`` times; now and then, by its hash, one that
        does not."""
        result = np.zeros(texts, bool)
        last = len(self.text) - size + 1
        if last < 1:
            return result
        begins = np.flatnonzero(self.text[:last] == self.text[size - 1 :])
        word = self.code.astype(np.uint64)
        with np.errstate(over="ignore"):
            key = self.text[begins].astype(np.uint64)
            for i in range(size):
                key = (key ^ (word[begins + i] + _MIX)) * _PRIME
                key ^= key >> np.uint64(29)
        phrase = pa.array(key).dictionary_encode().indices.to_numpy()
        result[self.text[begins[np.bincount(phrase)[phrase] > most]]] = True
        return result
