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

from reward.answers.answer_words import ENGLISH, NO, YES
from reward.answers.compare_phrases import differ_in_a_sign, same_phrase, same_signs
from reward.answers.denied import is_asked, is_counted
from reward.answers.quantity import quantity, same
from reward.answers.short_answer import sentences, short_answer
from reward.text.language import language, scripts
from reward.text.refusals import refuses
from reward.text.same_text import blank, identity, spelling, without_markup

_MOST_LETTERS = 200
#: Behind "no" these make something else of it.
_ODD = (
    r"(?:doubt|matter|longer|one|more|less|wonder|problem|worries|idea|thing|way|question|need|wait|other|only|clue|"
    r"comment|answer|answers|information|info|context|details?|data|evidence|image|images|picture|pictures|photo|"
    r"photos|sense|guess|opinion)\b"
)
#: Neither "No-smoking" nor "No. 5".
_FIRST = re.compile(r"\W*(?P<said>yes|no|true|false)(?=[\W_]*$| ?[,!;:)\u2013\u2014]| ?\.(?! ?\d)| ?-(?![^\W_])| -)")
_YES_THERE = re.compile(r"\W*(?P<said>yes) (?=(?:there|it|they|he|she|this|that|the|i|a|an)\b)")
_THERE = r"there(?:'s| is| are| was| were)|(?:i|we)(?: can)? see|the (?:image|picture|photo) (?:has|shows|contains)"
_NONE = re.compile(
    rf"(?:(?:{_THERE}) )?no (?!{_ODD})(?P<denied>(?:[^\W\d_]+ ?){{1,4}})(?:(?<= )(?:in|on|at) the [^\W\d_]+)?"
)
#: "There is a dog, no?" asks.
_LAST = re.compile(r"(?:.*\banswer(?: is|:)|.*\bi(?: would|'d) say|.*,) (?P<said>yes|no|true|false)[^\w?]*$")
#: "There isn't a dog, true." and "It is a dog, no." say two things.
_DENIED = re.compile(r"\b(?:not|never|cannot)\b|n't\b")
_STATED = re.compile(rf"\W*(?:{_THERE}|(?:it|this|that|he|she|they)(?:'s|'re| is| are)) ")
_ZERO = re.compile(rf"none|no (?!{_ODD})(?P<denied>[^\W\d_]+(?: [^\W\d_]+){{0,2}})")
#: What such a text says is up to what was asked.
_DENIES = re.compile(r"\bno\s+\w")
_LETTER = re.compile(r"[(\[]?([a-z])[)\].:]*")
_CHOSEN = re.compile(r"(?:[(\[]([a-z])[)\]]|\b([a-z])[).:])(?= |$)")
#: A letter by itself that is neither an article nor the writer.
_ALONE = re.compile(
    r"(?<![\w'])(?![AI] (?!(?:is|was|isn|and|or|nor|because|since|but|would|seems|looks)\b)[a-z])([A-Z])(?![\w'+#&/])"
)
_RULED_OUT = re.compile(r"\b(?:wrong|incorrect|not|isn't|neither|except|rather than|instead of)\b", re.IGNORECASE)

#: "Answer in German." and the like.
_ELSEWHERE = re.compile(
    r"\b(?:in|into|to) (?:simplified |traditional |brazilian )?"
    r"(?:arabic|chinese|czech|danish|dutch|finnish|french|german|greek|hebrew|hindi|hungarian|indonesian|italian|japanese|"
    r"korean|latin|mandarin|norwegian|polish|portuguese|romanian|russian|spanish|swedish|thai|turkish|ukrainian|"
    r"vietnamese)\b",
    re.IGNORECASE,
)


def reads_question(text: str) -> bool:
    """Whether what ``text`` says may be up to what was asked.

    >>> reads_question("There are no dogs."), reads_question("No, there is a cat."), reads_question("**No** dogs.")
    (True, False, True)
    """
    return _DENIES.search(_plain(text[:_MOST_LETTERS])) is not None


def agrees(text: str, answers: Sequence[str], question: str | None = None) -> bool | None:
    """Whether ``text`` gives one of the right ``answers``: True, False, or None where that cannot be read.

    With the ``question``, what a text denies ("No dogs.") is an answer where it was asked about; without, wherever it
    may be one. Other names for one thing are known in English alone, so in other languages none is called wrong.

    >>> [agrees(text, ["3"]) for text in ("There are three dogs.", "Two.", "3 or 4", "I cannot tell.", "several")]
    [True, False, None, None, None]
    >>> [agrees(text, ["cat"]) for text in ("A cat.", "It's a cat", "dog", "two cats", "The cat sits by the dog.")]
    [True, True, False, None, None]
    >>> agrees("5", ["-5"]), agrees("C", ["C++"]), agrees("1.2", ["1/2"]), agrees("two", ["2", "3"])
    (False, False, False, True)
    """
    asked = question if reads_question(text) else None
    english = question is None or is_english(question)
    verdicts = [_agrees(text, answer, asked, english) for answer in answers if not blank(answer)]
    if True in verdicts:
        return True
    return None if None in verdicts or not verdicts else False


@lru_cache(4096)
def is_english(question: str) -> bool:
    """Whether an English word is in it and nothing speaks against it: few languages can be told, and a question of
    another one, such as Swedish, has none. Where it wants the answer in another language, its words are no help.

    >>> is_english("Is it a cat?"), is_english("Was ist das?"), is_english("Vad är det?"), is_english("这是什么?")
    (True, False, False, False)
    """
    asked = {*re.findall(r"[^\W\d_]+", question.casefold())}
    if not asked & ENGLISH or _ELSEWHERE.search(question):
        return False
    return set(scripts(question)) <= {"LATIN"} and language(question) in (None, "en")


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


def yes_or_no(text: str, question: str | None = None) -> bool | None:
    """What a text says to a question of yes or no: by the word itself, or by "There is no ...", which is a no where
    it was asked about.

    >>> [yes_or_no(text) for text in ("Yes, there is.", "No dog is there.", "There is no dog.", "Not sure.")]
    [True, False, False, None]
    >>> yes_or_no("There is no doubt."), yes_or_no("Yes and no"), yes_or_no("There are no cats, but a dog.")
    (None, None, None)
    >>> yes_or_no("There are no people.", "Is the street empty?"), yes_or_no("No dog.", "Is there a dog?")
    (None, False)
    """
    shown = _plain(text[:_MOST_LETTERS])
    words = frozenset(re.findall(r"[a-z]+", shown))
    if bool(words & YES) == bool(words & NO):
        return None
    lead = re.sub(r"^(?:the )?(?:correct )?answer(?: is|:) ?:? ?", "", shown)
    whole = len(text) <= _MOST_LETTERS
    for pattern in (_FIRST, _YES_THERE, *([_LAST] if whole else [])):
        if match := pattern.match(lead) or pattern.match(shown):
            said = match["said"] in YES
            return None if pattern is _LAST and _turns_round(said, shown) else said
    if not whole:  # what begins to be a "no" there may go on as "not" or "no doubt"
        return None
    none = _NONE.fullmatch(shown.rstrip(" .!"))
    if none is None or words & {"but", "except", "only", "just", "other"}:
        return None
    return False if question is None or is_asked(none["denied"], question) else None


def _turns_round(said: bool, text: str) -> bool:
    """Whether the word at a text's end is not what stands before it."""
    denied = _DENIED.search(text) is not None
    return denied if said else not denied and _STATED.match(text) is not None


@lru_cache(1 << 16)
def _agrees(text: str, truth: str, question: str | None, english: bool) -> bool | None:
    if blank(text):
        return None
    if identity(text) == identity(truth):
        return True
    if asks_yes_or_no(truth):
        yes = yes_or_no(text, question)
        return None if yes is None else yes == is_yes(truth)
    if len(text) > _MOST_LETTERS or refuses(text):
        return None
    if (letter := _LETTER.fullmatch(_plain(truth))) and (option := _option(text)) is not None:
        return option == letter[1]
    read = {_sentence(sentence, truth, question, english) for sentence in sentences(text)}
    return read.pop() if len(read) == 1 else None


def _option(text: str) -> str | None:
    """The letter that a text chooses: "B", "(B) a dog", "The answer is B."; None where it names several, or says of
    one that it is not the answer."""
    answer = short_answer(text)
    if whole := _LETTER.fullmatch(answer):
        return whole[1]
    first = _CHOSEN.match(answer)
    letters = {bracketed or pointed for bracketed, pointed in _CHOSEN.findall(answer)}
    letters |= {letter.casefold() for letter in _ALONE.findall(text)}
    if _RULED_OUT.search(text):
        return None
    return first[1] or first[2] if first and len(letters) == 1 else None


def _sentence(text: str, truth: str, question: str | None, english: bool) -> bool | None:
    answer, wanted = short_answer(text), short_answer(truth)
    if not answer or not wanted:
        return None
    if identity(answer) == identity(wanted):
        return True
    number, other = quantity(answer), quantity(wanted)
    if number is not None and other is not None:
        return same(number, other)
    if other is not None and (none := _ZERO.fullmatch(answer)):
        if question is not None and none["denied"] is not None and not is_counted(none["denied"], question):
            return None
        return other.value == 0 if not other.unit or other.unit in answer else None
    if number is not None or other is not None:
        return False if differ_in_a_sign(answer, wanted) else None
    if not any(sign.isalpha() for sign in answer + wanted):
        return same_signs(answer, wanted)
    if not english or not all(sign.isascii() for sign in text + truth if sign.isalpha()):
        return False if differ_in_a_sign(answer, wanted) else None
    return same_phrase(answer, wanted)


def _plain(text: str) -> str:
    return " ".join(without_markup(spelling(text).replace("\u2019", "'")).split())
