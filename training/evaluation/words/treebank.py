"""Words of an English text as the Penn Treebank cuts them, which is what ``nltk.word_tokenize`` does.

CHAIR and AMBER look words up, so where a word ends decides what counts. The cuts agree with NLTK 3.9 on every token
made of letters: a full stop is cut off where it ends a sentence, and otherwise stays with its word ("a dog., a cat"
names no dog). Two things are left out because no object is named so: contractions without an apostrophe ("cannot",
"gonna") stay whole, and an abbreviation does not keep its full stop where a sentence could end.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple

#: Signs that stand alone wherever they are. A slash, an underscore and a single hyphen do not: "man/woman" is one word.
_SIGNS = r"?!;@#$%&*()\[\]{}<>\"«“‘„»”’\u2012-\u2015"
#: An opening quotation mark; the apostrophe of a clitic such as 's is none.
_OPENING = r"(?<!\w)'(?!(?:re|ve|ll|m|t|s|d|n)\b)(?=\w)"
_PIECE = re.compile(
    rf"\.{{2,}}|--|`+|''|[{_SIGNS}]|[:,](?!\d)|{_OPENING}"
    rf"|(?:(?!\.\.|--|''|{_OPENING})[^\s`:,{_SIGNS}]|[:,](?=\d))+",
    re.IGNORECASE,
)
#: Up to the end of a sentence: the last sign in a run without blanks that may end one, by what stands behind it; or the
#: last full stop of the text.
_SENTENCE = re.compile(r"\S*[.?!](?=[)\]}({\[\"'”’»;:*@!?\s]|[‘“«]\S)|\.(?=[\])}>\"'»”’\s]*$)")
_CLITIC = re.compile(r"(?<=[^'])(?:'(?:s|m|d|ll|re|ve)|n't)$", re.IGNORECASE)


class Token(NamedTuple):
    """``text[start:end]`` of what was cut."""

    start: int
    end: int
    text: str


def tokens(text: str) -> list[Token]:
    """
    >>> [token.text for token in tokens("The dog's bowl, a (red) one. Hot-dog and man/woman don't.")]
    ['The', 'dog', "'s", 'bowl', ',', 'a', '(', 'red', ')', 'one', '.', 'Hot-dog', 'and', 'man/woman', 'do', "n't", '.']
    """
    ends = [0, *(sentence.end() for sentence in _SENTENCE.finditer(text)), len(text)]
    return [
        token
        for start, end in itertools.pairwise(ends)
        for piece in _PIECE.finditer(text, start, end)
        for token in _cut(piece.start(), piece.group(), piece.end() == end)
    ]


def _cut(start: int, piece: str, last: bool) -> Iterator[Token]:
    """A piece without its full stop if it is the ``last`` of a sentence, apostrophe and clitic, and then those."""
    end = len(piece)
    tail: list[Token] = []
    for sign in (".", "'") if last else ("'",):
        # Several full stops are one sign.
        if end > 1 and piece[end - 1] == sign and piece[end - 2 : end] != "..":
            end -= 1
            tail.insert(0, Token(start + end, start + end + 1, sign))
    clitic = _CLITIC.search(piece[:end])
    if clitic and clitic.start():
        tail.insert(0, Token(start + clitic.start(), start + end, clitic.group()))
        end = clitic.start()
    yield Token(start, start + end, piece[:end])
    yield from tail
