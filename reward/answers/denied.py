"""Whether what a text denies is what was asked about: "No dogs." answers how many dogs there are and whether there is
one, and neither "Is the street empty?" nor, as "No comment.", anything. "No parking." says yes to whether it is
prohibited: a denial is a no only where the question asks whether the thing is there."""

from __future__ import annotations

import itertools
import re

from reward.answers.answer_words import words
from reward.answers.singular import singular

_NOUGHT = re.compile(r"\b0\b")
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
#: Behind these stands what is counted.
_COUNTS = re.compile(r"\b(?:how many|number of|count(?: of)?|amount of|total of)\b")
#: Between these and what is counted: "the number of the red dogs".
_MOST_BETWEEN = 3
#: With these in a question it is not plain what its denial means.
_TURNING = words(
    "no not none never nothing nobody neither nor without or isn't aren't wasn't weren't don't doesn't didn't can't "
    "cannot empty missing absent free lack lacks lacking less fewer bare clear vacant deserted gone than few little "
    "hardly barely scarcely zero false wrong untrue incorrect"
)
#: Behind these stands what a question asks to be there: "Is there", "Can you see", "Does the boy wear".
_ASKS = re.compile(
    r"\b(?:(?:is|are|was|were) there|there (?:is|are|was|were)|"
    r"(?:do|did|can|could) (?:you|we) (?:see|spot|notice|find)|"
    r"(?:do|does|did) (?:[^\W\d_]+ ){1,3}(?:show|contain|have|include|depict|wear|hold|carry)|"
    r"(?:is|are|was|were) (?:[^\W\d_]+ ){1,3}(?:wearing|holding|carrying|showing))\b"
)
#: Here it ends: "a dog | on the couch", "a dog | sitting there".
_BEHIND = words(
    "a an the any some in on at near next beside by under below behind above over with within inside outside between "
    "around and that which who of to from here there visible present shown seen anywhere somewhere"
)
#: Articles.
_BEFORE = words("a an the any some such")
_QUESTIONS = re.compile(r"(?<=[.?!])\s+|\n")
#: What says of a thing that it is there.
_FILLERS = words("a an the any such is are was were be there here visible present seen shown in on at it")
_PLACES = words("image picture photo photograph scene view")


def is_asked(denied: str, question: str) -> bool:
    """Whether the question asks if there is any of what is ``denied``, one or many of it, and turns nothing round.

    >>> is_asked("dogs in the image", "Is there a dog?"), is_asked("people", "Is the street empty?")
    (True, False)
    >>> is_asked("red dogs", "Is there a dog?"), is_asked("dog", "Is there a dog or a cat?")
    (False, False)
    >>> is_asked("parking", "Is parking prohibited?"), is_asked("smoking", "Is there a sign about smoking?")
    (False, False)
    """
    asking = [part for part in _QUESTIONS.split(question.casefold()) if _ASKS.search(part)]
    match = _ASKS.search(asking[0]) if len(asking) == 1 else None
    if match is None or not _names(denied, asking[0]):
        return False
    return _head(_WORD.findall(asking[0][match.end() :])) in _things(denied)


def _names(denied: str, question: str) -> bool:
    """Whether all that is denied stands in the question, which turns nothing round."""
    asked = {singular(word) for word in _WORD.findall(question.casefold())}
    things = _things(denied)
    return bool(things) and not _TURNING & asked and not _NOUGHT.search(question) and set(things) <= asked


def _head(behind: list[str]) -> str | None:
    """What a question asks to be there: the last word before what says where it is or what it does."""
    thing = None
    for word in itertools.dropwhile(_BEFORE.__contains__, behind):
        if word in _BEHIND or (thing is not None and word.endswith("ing")):
            break
        thing = word
    return None if thing is None else singular(thing)


def is_counted(denied: str, question: str) -> bool:
    """Whether the question asks how many there are of what is ``denied``.

    >>> is_counted("dogs", "How many dogs are there?"), is_counted("cats", "How many dogs sit beside the cat?")
    (True, False)
    >>> is_counted("clue", "How many dogs are there?")
    False
    """
    match = _COUNTS.search(question.casefold())
    if match is None or not _names(denied, question):
        return False
    behind = [singular(word) for word in _WORD.findall(question.casefold()[match.end() :])]
    things = _things(denied)
    if "and" in behind[: _MOST_BETWEEN + 1]:  # of dogs and cats there may be some without a dog
        return False
    return set(things) <= set(behind[: len(things) + _MOST_BETWEEN]) and things[-1] in behind[: _MOST_BETWEEN + 1]


def _things(denied: str) -> list[str]:
    things = [singular(word) for word in _WORD.findall(denied.casefold())]
    while things and things[-1] in _PLACES | _FILLERS:
        things.pop()
    return [word for word in things if word not in _FILLERS]
