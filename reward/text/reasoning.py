"""What a model answers behind its reasoning: models that think aloud write it within ``<think>`` and ``</think>``."""

from __future__ import annotations

import re

#: Kimi writes its own brackets.
_OPEN = re.compile(r"\s*(?:<(?:think|thinking)>|\u25c1think\u25b7)", re.IGNORECASE)
_CLOSE = re.compile(r"</(?:think|thinking)>|\u25c1/think\u25b7", re.IGNORECASE)
_ANSWER = re.compile(r"<answer>(.*)</answer>", re.IGNORECASE | re.DOTALL)


def has_reasoning(text: str) -> bool:
    """Whether a reasoning stands in a text, with or without its beginning or its end.

    >>> has_reasoning("It is a dog.</think> Yes"), has_reasoning("\u25c1think\u25b7Is it"), has_reasoning("I think so.")
    (True, True, False)
    """
    return ("<" in text or "\u25c1" in text) and bool(_CLOSE.search(text) or _OPEN.match(text))


def without_reasoning(text: str) -> str:
    """What stands behind the last end of a reasoning, without ``<answer>`` around it; a text without one is as it was.
    Many templates begin the reasoning themselves, so that only its end is in the text. One that was cut within its
    reasoning answers nothing.

    >>> without_reasoning("<think>No dog? There is.</think>\\n\\nYes"), without_reasoning("No dog.</think> Yes")
    ('Yes', 'Yes')
    >>> without_reasoning("<think>Is there"), without_reasoning(" Yes. "), without_reasoning("It says <think>.")
    ('', ' Yes. ', 'It says <think>.')
    """
    ends = list(_CLOSE.finditer(text))
    if not ends:
        return "" if _OPEN.match(text) else text
    answer = text[ends[-1].end() :].strip()
    wrapped = _ANSWER.fullmatch(answer)
    return answer if wrapped is None else wrapped[1].strip()
