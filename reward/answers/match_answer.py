"""Whether a text gives a known answer, in whatever short form; None where no answer can be read in it.

A right answer that is called wrong makes a wrong label, and so does a wrong one that is called right. So "wrong" is
said only of a text that is a short answer of the same kind as the right one and differs from it in what it means; what
is not understood is None.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from reward.answers.answer_words import NO, YES
from reward.answers.compare_phrases import differ_in_a_sign, same_phrase, same_signs
from reward.answers.quantity import quantity, same
from reward.answers.short_answer import sentences, short_answer
from reward.text.refusals import refuses
from reward.text.same_text import blank, identity, spelling, without_markup

_MOST_LETTERS = 200
#: Behind "no" these make something else of it.
_ODD = r"(?:doubt|matter|longer|one|more|less|wonder|problem|worries|idea|thing|way|question|need|wait|other|only)\b"
_FIRST = re.compile(r"\W*(?P<said>yes|no|true|false)(?=[\W_]*$| ?[,.!;:)\u2013\u2014-])")
_YES_THERE = re.compile(r"\W*(?P<said>yes) (?=(?:there|it|they|he|she|this|that|the|i|a|an)\b)")
_THERE = r"there(?:'s| is| are| was| were)|(?:i|we)(?: can)? see|the (?:image|picture|photo) (?:has|shows|contains)"
_NONE = re.compile(rf"(?:(?:{_THERE}) )?no (?!{_ODD})(?:[^\W\d_]+ ?){{1,4}}(?:(?<= )(?:in|on|at) the [^\W\d_]+)?")
_LAST = re.compile(r"(?:.*\banswer(?: is|:)|.*\bi(?: would|'d) say|.*,) (?P<said>yes|no|true|false)\W*$")
_ZERO = re.compile(rf"none|no (?!{_ODD})[^\W\d_]+(?: [^\W\d_]+){{0,2}}")
_LETTER = re.compile(r"[(\[]?([a-z])[)\].:]*")
_CHOSEN = re.compile(r"(?:[(\[]([a-z])[)\]]|\b([a-z])[).:])(?= |$)")


def agrees(text: str, answers: Sequence[str]) -> bool | None:
    """Whether ``text`` gives one of the right ``answers``: True, False, or None where that cannot be read.

    >>> [agrees(text, ["3"]) for text in ("There are three dogs.", "Two.", "3 or 4", "I cannot tell.", "several")]
    [True, False, None, None, None]
    >>> [agrees(text, ["cat"]) for text in ("A cat.", "It's a cat", "dog", "two cats", "The cat sits by the dog.")]
    [True, True, False, None, None]
    >>> agrees("5", ["-5"]), agrees("C", ["C++"]), agrees("1.2", ["1/2"]), agrees("two", ["2", "3"])
    (False, False, False, True)
    """
    verdicts = [_agrees(text, answer) for answer in answers if not blank(answer)]
    if True in verdicts:
        return True
    return None if None in verdicts or not verdicts else False


def right(facts: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The right answers that facts know, none twice.

    >>> right({"answer": "two", "answers": ["two", "2"]}), right({"answer": "yes"}), right(None)
    (('two', '2'), ('yes',), ())
    """
    facts = facts or {}
    every = [facts.get("answer"), *(facts.get("answers") or ())] if facts.get("answer") is not None else []
    return tuple(dict.fromkeys(answer for answer in every if answer is not None))


def asks_yes_or_no(answer: str) -> bool:
    """Whether the question is one of yes or no, by its right answer."""
    return identity(answer) in YES | NO


def is_yes(answer: str) -> bool:
    return identity(answer) in YES


def yes_or_no(text: str) -> bool | None:
    """What a text says to a question of yes or no: by the word itself, or by "There is no ...".

    >>> [yes_or_no(text) for text in ("Yes, there is.", "No dog is there.", "There is no dog.", "Not sure.")]
    [True, False, False, None]
    >>> yes_or_no("There is no doubt."), yes_or_no("Yes and no"), yes_or_no("There are no cats, but a dog.")
    (None, None, None)
    """
    shown = _plain(text[:_MOST_LETTERS])
    words = frozenset(re.findall(r"[a-z]+", shown))
    if bool(words & YES) == bool(words & NO):
        return None
    lead = re.sub(r"^(?:the )?(?:correct )?answer(?: is|:) ?:? ?", "", shown)
    for pattern in (_FIRST, _YES_THERE, _LAST):
        if match := pattern.match(lead) or pattern.match(shown):
            return match["said"] in YES
    if _NONE.fullmatch(shown.rstrip(" .!")) and not words & {"but", "except", "only", "just", "other"}:
        return False
    return None


@lru_cache(1 << 16)
def _agrees(text: str, truth: str) -> bool | None:
    if blank(text):
        return None
    if identity(text) == identity(truth):
        return True
    if asks_yes_or_no(truth):
        yes = yes_or_no(text)
        return None if yes is None else yes == is_yes(truth)
    if len(text) > _MOST_LETTERS or refuses(text):
        return None
    if (letter := _LETTER.fullmatch(_plain(truth))) and (option := _option(text)) is not None:
        return option == letter[1]
    read = {_sentence(sentence, truth) for sentence in sentences(text)}
    return read.pop() if len(read) == 1 else None


def _option(text: str) -> str | None:
    """The letter that a text chooses: "B", "(B) a dog", "The answer is B."."""
    answer = short_answer(text)
    if whole := _LETTER.fullmatch(answer):
        return whole[1]
    first = _CHOSEN.match(answer)
    letters = {bracketed or pointed for bracketed, pointed in _CHOSEN.findall(answer)}
    return first[1] or first[2] if first and len(letters) == 1 else None


def _sentence(text: str, truth: str) -> bool | None:
    answer, wanted = short_answer(text), short_answer(truth)
    if not answer or not wanted:
        return None
    if identity(answer) == identity(wanted):
        return True
    number, other = quantity(answer), quantity(wanted)
    if number is not None and other is not None:
        return same(number, other)
    if other is not None and _ZERO.fullmatch(answer):
        return other.value == 0 if not other.unit or other.unit in answer else None
    if number is not None or other is not None:
        return False if differ_in_a_sign(answer, wanted) else None
    if not any(sign.isalpha() for sign in answer + wanted):
        return same_signs(answer, wanted)
    return same_phrase(answer, wanted)


def _plain(text: str) -> str:
    return " ".join(without_markup(spelling(text).replace("\u2019", "'")).split())
