"""Whether a question takes the scene for granted instead of asking about it.

A question written from the text an image was made from tends to say what is in the image ("Why does the red kite above
the two boats ..."). Whoever answers it need not look, and if the image does not show the boats, the true answer is that
the question is wrong. The rules here are plain: they look at words, not at grammar, and err on the side of flagging.
"""

from __future__ import annotations

import re

_WORD = re.compile(r"[a-z0-9']+(?:-[a-z0-9']+)*")


def _set(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


#: "How many" asks what can be seen; "how does ... contribute" does not.
_MEASURES = _set("many much big large small tall high long wide old far close full")
#: The whole of such a question is what is asked.
_ASKS_WHETHER = re.compile(r"(?:is|are) there\b|(?:do|can) you see\b|does (?:the|this) \w+ (?:show|contain|have)\b")
_DETERMINERS = _set("the this these those its their his her")
#: Every image has these; to name one says nothing about the scene.
_OF_ANY_IMAGE = _set(
    "image picture photo photograph scene illustration painting view frame background foreground setting surroundings",
    "left right top bottom middle centre center corner side edge front whole rest following first second main",
    "colour color colours colors number shape size position place location name type kind style mood atmosphere",
    "material weather season time day lighting light object objects thing things person people subject",
)
#: Where a noun phrase ends.
_ENDS = _set(
    "is are was were be been do does did has have had can could will would should may might must and or but nor",
    "of in on at to from by with without near next behind beside between above below under over around across through",
    "into onto for about as than that which who whose what where when while because if so not there here it they them",
    "he she you look looks seem seems appear appears stand stands sit sits lie lies show shows made visible present",
    "doing",
)
#: So many words in a row make a quotation.
_QUOTED = 4


def leading(question: str, text: str) -> str | None:
    """Why the question asserts the scene that ``text`` describes; None if it does not.

    It does if it asks why or how instead of what is there; if it repeats four words of the text in a row; if it names a
    thing with the text's own description of it ("the red kite"); or if, beside the one thing that it asks about, it
    takes another for granted ("the kite above the boats"). What begins with "Is there" or the like asks, whatever it
    names.

    >>> leading("What is to the left of the sun?", "There is a red sun.") is None
    True
    >>> leading("Why is the sun red?", "There is a red sun.")
    "asks 'why'"
    >>> leading("What lies under the red sun?", "There is a red sun.")
    "takes 'red sun' for granted"
    """
    words = _WORD.findall(question.lower())
    if _ASKS_WHETHER.match(" ".join(words)):
        return None
    for at, word in enumerate(words):
        if word == "why" or (word == "how" and words[at + 1 : at + 2] and words[at + 1] not in _MEASURES):
            return f"asks {word!r}"
    described = _WORD.findall(text.lower())
    shared = _grams(words) & _grams(described)
    for gram in (tuple(words[at : at + _QUOTED]) for at in range(len(words))):
        if gram in shared:
            return f"repeats {' '.join(gram)!r}"
    for at, phrase in enumerate(_definite(words)):
        if at or set(phrase[:-1]) & set(described):
            return f"takes {' '.join(phrase)!r} for granted"
    return None


def _grams(words: list[str]) -> set[tuple[str, ...]]:
    return {tuple(words[at : at + _QUOTED]) for at in range(len(words) - _QUOTED + 1)}


def _definite(words: list[str]) -> list[list[str]]:
    """The noun phrases behind "the" and its like, without it, that name something not every image has."""
    phrases = []
    for at, word in enumerate(words):
        if word not in _DETERMINERS:
            continue
        phrase: list[str] = []
        for following in words[at + 1 : at + 4]:
            if following in _ENDS or following in _DETERMINERS or (phrase and following.endswith("ing")):
                break
            phrase.append(following)
        if phrase and phrase[-1] not in _OF_ANY_IMAGE:
            phrases.append(phrase)
    return phrases
