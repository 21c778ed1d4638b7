"""Whether two texts are the same answer. What a sign means is kept, and where that is in doubt the texts differ: a pair
of two that are alike costs little, and a label that was given to both of two answers is wrong for one of them.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Literal

#: The compatibility characters that are the same sign in another width or shape. A raised 2, a circled 2 and a half are
#: signs of their own.
_SHAPES = re.compile(r"<(?:wide|narrow|small|compat|noBreak|vertical|initial|medial|final|isolated)>")
#: Shown as nothing, or as nothing but room. Joiners and tags are not among them: they tell emoji apart.
UNSEEN = frozenset(
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180e\u180f\u200b\u200e\u200f\u202a\u202b\u202c\u202d"
    "\u202e\u2060\u2061\u2062\u2063\u2064\u2066\u2067\u2068\u2069\u206a\u206b\u206c\u206d\u206e\u206f\u2800\u3164\ufe00"
    "\ufe01\ufe02\ufe03\ufe04\ufe05\ufe06\ufe07\ufe08\ufe09\ufe0a\ufe0b\ufe0c\ufe0d\ufe0e\ufe0f\ufeff\uffa0"
)
_HYPHENS = dict.fromkeys(map(ord, "\u2010\u2011\u2212"), "-")
#: Between letters, or before a clause, these are the rhythm of a sentence; beside a digit they belong to it.
_RANGES = re.compile(r"(?<=\d)\s*[\u2013\u2014]\s*(?=\d)|[\u2013\u2014](?=\d)")
_EMPHASIS = re.compile(r"(?<![\w*`])(\*{1,3}|_{1,3}|`{1,3})(?=[^\s*_`])([^*_`\n]*?[^\s*_`])\1(?![\w*`])")
_QUOTED = re.compile(r"(?<![^\s(\[{,.:;\u2014\u2013])([\"'])(?=\S)([^\"'\n]*?\S)\1(?!\w)")
_BULLET = re.compile(r"^[ \t]*(?:[*\u2022]|#{1,6}|-(?=[ \t]+\D))[ \t]+", re.MULTILINE)
#: A space that some write between a number and its sign.
_UNITS = re.compile(r"(?<=\d)\s+(?=[%\u2030\u00b0])|(?<=[$\u20ac\u00a3\u00a5])\s+(?=\d)")
_NO_LETTER = re.compile(r"[^\w\s]|_")
#: Signs that always mean something.
_MEANT = frozenset("%\u2030\u2031\u066a#&@/\\\u00a7\u2032\u2033\u2034")


def identity(text: str) -> str:
    """Equal for texts that are the same answer: case, accents composed or not, white space, invisible characters and
    the signs that only end, join or quote make no difference.

    >>> identity(" A sun,  and a BOAT. "), identity("'Yes!'"), identity("**5**"), identity("cafe\\u0301")
    ('a sun and a boat', 'yes', '5', 'café')
    >>> [identity(text) for text in ("-5", "C++.", "C#", "50%", "2-3", "2*3", "1/2", "1.2", "(2+3)*4", "x\\u00b2")]
    ['-5', 'c++', 'c#', '50%', '2-3', '2*3', '1/2', '1.2', '(2+3)*4', 'x²']
    >>> identity(".NET."), identity("...and a dog. ")
    ('.net', 'and a dog')
    """
    shown = _UNITS.sub("", _RANGES.sub("-", without_markup(spelling(text))))

    def replacement(match: re.Match[str]) -> str:
        sign = match.group()
        return sign if not _is_mark(sign) or _means(shown, match.start(), sign) else " "

    return " ".join(_NO_LETTER.sub(replacement, shown).split())


def without_markup(text: str) -> str:
    """Without bullets, headings, emphasis and quotes.

    >>> without_markup("- **dark** 'blue'").split()
    ['dark', 'blue']
    """
    return _QUOTED.sub(r" \2 ", _EMPHASIS.sub(r" \2 ", _BULLET.sub("", text)))


def spelling(text: str) -> str:
    """Case folded, every character in one spelling and shape, the invisible ones left out.

    >>> spelling("\\uff15 Cafe\\u0301\\u200b"), spelling("x\\u00b2"), spelling("STRASSE") == spelling("Stra\\u00dfe")
    ('5 café', 'x²', True)
    """
    if text.isascii():
        return _CONTROL.sub(" ", text.casefold())
    seen = "".join(_shape(sign) for sign in text if sign not in UNSEEN)
    folded = unicodedata.normalize("NFD", unicodedata.normalize("NFD", seen).casefold()).casefold()
    return _CONTROL.sub(" ", unicodedata.normalize("NFC", folded).translate(_HYPHENS))


def blank(text: str) -> bool:
    """Whether nothing of a text can be seen but marks.

    >>> blank("\\u200b"), blank("\\ufeff..."), blank("5"), blank("\\u2600")
    (True, True, False, False)
    """
    return not any(_is_seen(sign) for sign in text)


def is_unseen(text: str) -> bool:
    """Whether nothing of a text can be seen at all.

    >>> is_unseen("\\u200b "), is_unseen("...")
    (True, False)
    """
    return all(sign.isspace() or sign in UNSEEN or unicodedata.category(sign) in ("Cc", "Cf") for sign in text)


_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")


def _is_seen(sign: str) -> bool:
    """Letters, digits and symbols are, and what this Python does not know yet; marks above a letter need the letter."""
    kind = unicodedata.category(sign)
    if sign in UNSEEN or "\U000e0000" <= sign <= "\U000e0fff" or "\ufff0" <= sign <= "\ufff8":
        return False
    return kind[0] in "LNS" or kind in ("Cn", "Co")


def _shape(sign: str) -> str:
    if sign < "\u00a0":
        return sign
    return unicodedata.normalize("NFKC", sign) if _SHAPES.match(unicodedata.decomposition(sign)) else sign


def _is_mark(sign: str) -> bool:
    return unicodedata.category(sign).startswith("P")


def _means(text: str, at: int, sign: str) -> bool:
    """Whether the punctuation mark at a place is more than that."""
    before, after = text[at - 1 : at], text[at + 1 : at + 2]
    if sign in _MEANT:
        return True
    if sign == "-":
        return _minus(text, at, before, after)
    if sign == "*":
        return True
    if sign == "_":
        return before.isalnum() and after.isalnum()
    if sign == ".":
        return after.isdigit() or (after.isalpha() and _starts(before))  # .5, 1.5, .NET
    if sign == "!":
        return before.isdigit() or after == "=" or (_starts(before) and after.isalnum()) or _is_single(text, at)
    if sign in "\"'":
        # Feet, inches, minutes; and the first derivative.
        return before.isdigit() or (not after.isalnum() and _is_single(text, at))
    if sign in "([{":
        return after.isdigit() or before.isalnum() or _operates(before) or _operates(after) or before in (":", ";", "=")
    if sign in ")]}":
        return before.isdigit() or after.isalnum() or _operates(before) or _operates(after) or before in (":", ";", "=")
    return before.isdigit() and after.isdigit()


def _minus(text: str, at: int, before: str, after: str) -> bool:
    """A hyphen between words joins them, and one between spaces is a dash; all others are signs."""
    if before.isalpha() and after.isalpha():
        return _is_single(text, at) and not text[at + 2 : at + 3].isalnum()
    if _starts(before) and _starts(after):
        return _next(text, at, 1).isdigit()
    return True


def _starts(sign: str) -> bool:
    return not sign or sign.isspace()


def _operates(sign: str) -> bool:
    return bool(sign) and (sign in "*/-+^" or unicodedata.category(sign) == "Sm")


def _is_single(text: str, at: int) -> bool:
    """Whether one letter alone stands before."""
    return text[at - 1 : at].isalpha() and not text[max(at - 2, 0) : at - 1].isalnum()


def _next(text: str, at: int, step: Literal[1, -1]) -> str:
    at += step
    while 0 <= at < len(text) and text[at].isspace():
        at += step
    return text[at : at + 1]
