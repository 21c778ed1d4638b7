"""Whether what a text denies is what was asked about: "No dogs." answers how many dogs there are, and neither "Is the
street empty?" nor, as "No comment.", anything."""

from __future__ import annotations

import re

from reward.answers.answer_words import words
from reward.text.lexicon import IRREGULAR

_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
#: Behind these stands what is counted.
_COUNTS = re.compile(r"\b(?:how many|number of|count(?: of)?|amount of|total of)\b")
#: Between these and what is counted: "the number of the red dogs".
_MOST_BETWEEN = 3
#: With these in a question it is not plain what its denial means.
_TURNING = words(
    "no not none never nothing nobody neither nor without or isn't aren't wasn't weren't don't doesn't didn't can't "
    "cannot empty missing absent free lack lacks lacking less fewer bare clear vacant deserted gone"
)
#: What says of a thing that it is there.
_FILLERS = words("a an the any such is are was were be there here visible present seen shown in on at it")
_PLACES = words("image picture photo photograph scene view")
_SINGULARS = {**{many: one for one, many in IRREGULAR.items()}, "persons": "person"}


def is_asked(denied: str, question: str) -> bool:
    """Whether all that is ``denied`` stands in the question, one or many of it, and the question turns nothing round.

    >>> is_asked("dogs in the image", "Is there a dog?"), is_asked("people", "Is the street empty?")
    (True, False)
    >>> is_asked("red dogs", "Is there a dog?"), is_asked("dog", "Is there a dog or a cat?")
    (False, False)
    """
    asked = [_singular(word) for word in _WORD.findall(question.casefold())]
    things = _things(denied)
    return bool(things) and not _TURNING & {*asked} and set(things) <= set(asked)


def is_counted(denied: str, question: str) -> bool:
    """Whether the question asks how many there are of what is ``denied``.

    >>> is_counted("dogs", "How many dogs are there?"), is_counted("cats", "How many dogs sit beside the cat?")
    (True, False)
    >>> is_counted("clue", "How many dogs are there?")
    False
    """
    match = _COUNTS.search(question.casefold())
    if match is None or not is_asked(denied, question):
        return False
    behind = [_singular(word) for word in _WORD.findall(question.casefold()[match.end() :])]
    things = _things(denied)
    if "and" in behind[: _MOST_BETWEEN + 1]:  # of dogs and cats there may be some without a dog
        return False
    return set(things) <= set(behind[: len(things) + _MOST_BETWEEN]) and things[-1] in behind[: _MOST_BETWEEN + 1]


def _things(denied: str) -> list[str]:
    things = [_singular(word) for word in _WORD.findall(denied.casefold())]
    while things and things[-1] in _PLACES | _FILLERS:
        things.pop()
    return [word for word in things if word not in _FILLERS]


def _singular(word: str) -> str:
    """One form for one and many, be it a word or not: what counts is that both have the same.

    >>> [_singular(word) for word in ("dogs", "dog", "boxes", "box", "women", "parties", "party", "glass")]
    ['dog', 'dog', 'box', 'box', 'woman', 'party', 'party', 'glass']
    """
    if word in _SINGULARS:
        return _SINGULARS[word]
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("ches", "shes", "sses", "xes", "zes")):
        return word[:-2]
    return word[:-1] if len(word) > 2 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word
