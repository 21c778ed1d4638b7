"""Whether two short answers that are no numbers are the same: names, signs, names with signs. As ``short_answer``
leaves them."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence

from reward.answers.answer_words import GENERIC, NO, UNSURE, YES, named_alike
from reward.answers.singular import singular

#: With more words a text is an explanation, and is read by nobody here.
MOST_WORDS = 3
_MOST_RIGHT = 6
_HARD = frozenset("+#%$\u20ac\u00a3\u00a5<>=*^\u00b1\u00d7\u00f7")
#: Between digits these may stand for each other: a score, a time, a ratio, a range.
_SOFT = frozenset("-:./, ")
_NEAR = 0.75
#: Longer words are no initials.
_MOST_INITIALS = 6


def same_phrase(answer: str, right: str) -> bool | None:
    """False for a short name of something else: one with no word of the right answer in it, nor another name for it.
    Both are English: of other languages no other names are known here.

    >>> same_phrase("dog", "cat"), same_phrase("blue", "dark blue"), same_phrase("sofa", "couch")
    (False, None, None)
    >>> same_phrase("c++", "c"), same_phrase("ac dc", "ac/dc"), same_phrase("not a cat", "dog")
    (False, None, None)
    """
    if differ_in_a_sign(answer, right):
        return False
    given, wanted = (re.findall(r"[^\W_]+(?:'[^\W_]+)?", side) for side in (answer, right))
    if not given or not wanted or len(given) > MOST_WORDS or len(wanted) > _MOST_RIGHT or UNSURE & {*given, *wanted}:
        return None
    if not all(sign.isalpha() or sign in " '-" for sign in answer + right):
        return None
    if min(len(answer), len(right)) < 2:
        return None  # the letter of an option
    if {answer, right} & (YES | NO) or GENERIC & {given[-1], wanted[-1]}:
        return None
    return None if _are_related(given, wanted) else False


def differ_in_a_sign(answer: str, other: str) -> bool:
    """Whether two differ in nothing but signs, of which one always means something.

    >>> differ_in_a_sign("c", "c++"), differ_in_a_sign("well-known", "well known"), differ_in_a_sign("<5", "5")
    (True, False, True)
    """
    answer, other = (re.sub(r"^<(.*)>$|^= ?(.*)$", r"\1\2", side, flags=re.DOTALL) for side in (answer, other))
    if _letters(answer) != _letters(other):
        return False
    return [sign for sign in answer if sign in _HARD] != [sign for sign in other if sign in _HARD]


def same_signs(answer: str, right: str) -> bool | None:
    """Of digits and signs without a letter.

    >>> same_signs("2 - 3", "2-3"), same_signs("2*3", "2-3"), same_signs("10.15", "10:15")
    (True, False, None)
    """
    if re.sub(r"\s+", "", answer) == re.sub(r"\s+", "", right):
        return True
    digits, signs = ([re.findall(pattern, side) for side in (answer, right)] for pattern in (r"\d+", r"[^\d\s]"))
    same = digits[0] == digits[1] != []
    return False if same and not all(_SOFT.issuperset(side) for side in signs) else None


def _are_related(words: Sequence[str], other: Sequence[str]) -> bool:
    """Whether two phrases may mean the same: a word or its beginning in common, initials, another name."""
    joined = ["".join(words), "".join(other)]
    if _short_for(words, joined[1]) or _short_for(other, joined[0]):
        return True
    if joined[0][0] == joined[1][0] and min(map(len, joined)) <= 2:  # an abbreviation
        return True
    if difflib.SequenceMatcher(None, joined[0], joined[1]).ratio() >= _NEAR:
        return True
    if any(_kin(a, b) for a in words for b in other):
        return True
    return named_alike(" ".join(words), " ".join(other)) or named_alike(words[-1], other[-1])


def _kin(word: str, other: str) -> bool:
    """Whether one is the other's plural, or its beginning.

    >>> _kin("leaves", "leaf"), _kin("skies", "sky"), _kin("kit", "kitten"), _kin("leaf", "tree")
    (True, True, True, False)
    """
    if singular(word) == singular(other):
        return True
    short, long = sorted((word, other), key=len)
    return len(short) >= 3 and (short in long or short[:4] == long[:4])


def _letters(text: str) -> str:
    return "".join(sign for sign in text if sign.isalnum())


def _short_for(words: Sequence[str], short: str) -> bool:
    """Whether one side is the other's initials, perhaps of a longer or shorter form of the name.

    >>> _short_for(["united", "kingdom"], "uk"), _short_for(["united", "states"], "usa"), _short_for(["dog"], "cat")
    (True, True, False)
    """
    initials = "".join(word[0] for word in words)
    if min(len(initials), len(short)) < 2 or len(short) > _MOST_INITIALS:
        return False
    return initials.startswith(short) or short.startswith(initials)
