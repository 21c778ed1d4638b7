"""Answers to MMMU's open questions as its own ``eval_utils.py`` reads them: texts and numbers that may be meant."""

from __future__ import annotations

import re
from collections.abc import Sequence

#: What an answer may stand behind. In the last line, an equals sign too.
_BEFORE = ("could be ", "so ", "is ", "thus ", "therefore ", "final ", "answer ", "result ")
_TRIVIAL = frozenset(":,.!?;'")
_NUMBERS = (
    re.compile(r"-?\b\d{1,3}(?:,\d{3})+\b"),
    re.compile(r"-?\d+(?:\.\d+)?[eE][+-]?\d+"),
    re.compile(r"-?(?:\d+\.\d+|\.\d+|\d+\b)(?![eE][+-]?\d+)(?![,\d])"),
)
Value = str | float


def is_right(text: str, answers: Sequence[str]) -> bool:
    """Whether one of the right answers is in what ``text`` may mean: a number that is equal to two decimals, or a text
    within one of its own.

    >>> is_right("So the answer is 1,234.50.", ["1234.5"]), is_right("It is 12 apples", ["2"])
    (True, False)
    >>> is_right("Thus we get a red dog", ["Dog"]), is_right("A dogma", ["dog"]), is_right("", ["dog"])
    (True, True, False)
    """
    right = {value for answer in answers for value in values(answer)}
    return any(
        value in right if isinstance(value, float) else any(isinstance(of, str) and of in value for of in right)
        for value in meanings(text)
    )


def meanings(text: str) -> set[Value]:
    """The texts and numbers that an answer may mean: of each line the shortest end behind a word such as "is", or the
    whole answer if there is none, and the numbers in these.

    >>> sorted(map(str, meanings("x = 3, so y is 4.")))
    ['4.0']
    """
    whole = text.strip().strip(".").lower()
    lines = whole.split("\n")
    ends = []
    for place, line in enumerate(lines):
        end = ""
        for word in (*_BEFORE, *(("=",) if place == len(lines) - 1 else ())):
            behind = line.split(word)[-1].strip()
            if word in line and (not end or len(behind) < len(end)):
                end = behind
        if end and end not in _TRIVIAL:
            ends.append(end)
    ends = ends or [whole]
    numbers = [number for end in ends for pattern in _NUMBERS for number in pattern.findall(end)]
    return {value for each in (*ends, *numbers) for value in values(each)}


def values(text: str) -> list[Value]:
    """What is compared: a number to two decimals, or the text in lower case. A single letter counts only with a space
    beside it.

    >>> values(" 1,234.567 "), values("Dog"), values("X")
    ([1234.57], ['dog'], [' x', 'x '])
    """
    text = text.strip()
    try:
        return [round(float(text.replace(",", "")), 2)]
    except ValueError:
        text = text.lower()
        return [f" {text}", f"{text} "] if len(text) == 1 else [text]
