"""Yes or no: what a free-text answer says, read the way each published POPE harness reads it.

The three disagree, so the parser is always named next to the number. All are pure functions ``text -> "yes" | "no" |
None``; None means the harness itself finds no answer.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal

Answer = Literal["yes", "no"]
#: The names of ``PARSERS``.
Parser = Literal["official", "lmms_eval", "vlmevalkit"]


def official(text: str) -> Answer | None:
    """POPE's own ``evaluate.py`` (also LLaVA's ``eval_pope.py``). Never None.

    Only what stands before the first full stop, commas removed, split at single spaces: "no" if one of the words is
    exactly ``No``, ``not`` or ``no``, otherwise "yes". So "NO", "isn't", "no!", a refusal and an empty text are "yes".

    >>> official("No, there is no dog."), official("There isn't."), official("I cannot see. No.")
    ('no', 'yes', 'yes')
    """
    words = text.split(".", 1)[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"}.intersection(words) else "yes"


def lmms_eval(text: str) -> Answer | None:
    """lmms-eval's ``pope`` task: the whole text, trimmed and lower-cased, is exactly ``yes`` or ``no``; else None.

    >>> lmms_eval(" Yes\\n"), lmms_eval("yes.")
    ('yes', None)
    """
    match text.strip().lower():
        case "yes":
            return "yes"
        case "no":
            return "no"
        case _:
            return None


def vlmevalkit(text: str) -> Answer | None:
    """VLMEvalKit's ``YOrN_Extraction``: the words hold ``yes`` and not ``no``, or ``no`` and not ``yes``; else None.

    >>> vlmevalkit("Yes, there is."), vlmevalkit("yes or no"), vlmevalkit("nope")
    ('yes', None, None)
    """
    words = frozenset(_without_punctuation(text.lower()).split())
    if ("yes" in words) == ("no" in words):
        return None
    return "yes" if "yes" in words else "no"


#: Parser by the name a recipe uses.
PARSERS: Mapping[str, Callable[[str], Answer | None]] = {
    "official": official,
    "lmms_eval": lmms_eval,
    "vlmevalkit": vlmevalkit,
}

_SIGNS = ';/[]"{}()=+\\_-><@`,?!'
_GROUPED_DIGITS = re.compile(r"\d,\d")
_FULL_STOP = re.compile(r"\.(?!\d)")


def _without_punctuation(text: str) -> str:
    """The clean-up VLMEvalKit inherits from the VQA evaluation, kept with its two oddities.

    A sign that touches a space anywhere in the text vanishes everywhere, otherwise it becomes a space; and once a
    number such as 1,000 occurs, every sign vanishes. Only the first 32 full stops are removed, because upstream passes
    ``re.UNICODE`` (32) where ``re.sub`` expects a count.
    """
    grouped = _GROUPED_DIGITS.search(text) is not None
    cleaned = text
    for sign in _SIGNS:
        vanishes = grouped or f"{sign} " in text or f" {sign}" in text
        cleaned = cleaned.replace(sign, "" if vanishes else " ")
    return _FULL_STOP.sub("", cleaned, count=32)
