"""What a cell of an input says is the answer, as texts. What cannot be meant as one is refused, never spelt out."""

from __future__ import annotations

import decimal
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from reward.text.same_text import is_unseen

#: Keys under which an answer stands in a row, in the order in which they are looked at; the last two are VQAv2's.
COLUMNS = ("answer", "multiple_choice_answer", "answers")


class NoAnswer(ValueError):
    """A value that is no answer; the message says which and what would be one."""


def answers(values: Iterable[Any]) -> tuple[str, ...]:
    """The answers that ``values`` name, each once; any of them is right. Empty where none is known.

    A list names each of its items, and a struct with ``answer`` (VQAv2's) that one; of many the most frequent comes
    first. True and false are yes and no, 2.0 is 2; null, nan and texts that cannot be
    seen name nothing.

    Raises:
        NoAnswer: bytes, a date, a nested list or the like.

    >>> answers([True]), answers([2.0]), answers([float("nan")]), answers([["one", "1", 1]])
    (('yes',), ('2',), (), ('1', 'one'))
    >>> answers([[{"answer": "no"}, {"answer": "yes", "answer_id": 2}, {"answer": "yes", "answer_id": 3}]])
    ('yes', 'no')
    """
    distinct: dict[str, int] = {}
    for value in values:
        counts: dict[str, int] = {}
        for text in _texts(value):
            counts[text] = counts.get(text, 0) + 1
        for text in sorted(counts, key=lambda answer: -counts[answer]):
            distinct.setdefault(text, 0)
    return tuple(distinct)


def _texts(value: Any, deep: int = 0) -> Iterator[str]:
    value = _plain(value)
    if isinstance(value, list | tuple):
        if deep:
            raise NoAnswer(f"{value!r:.80} is a list in a list; give a text, or a list of texts")
        for item in value:
            yield from _texts(item, 1)
    elif isinstance(value, Mapping):
        if "answer" not in value:
            raise NoAnswer(f"{value!r:.80} has no key `answer`; give a text, or a list of {{answer}}")
        # A list of structs may come as a struct of lists.
        yield from _texts(value["answer"], deep if isinstance(_plain(value["answer"]), list | tuple) else 1)
    elif (text := _text(value)) is not None:
        yield text


def _plain(value: Any) -> Any:
    """What numpy and pandas hold, as Python's own."""
    if hasattr(value, "tolist") and not isinstance(value, bytes):
        return value.tolist()
    return value


def _text(value: Any) -> str | None:
    if value is None or type(value).__name__ in ("NAType", "NaTType"):  # pandas'
        return None
    if isinstance(value, str):
        return None if is_unseen(value) else value
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return decimal_text(decimal.Decimal(value))
    if isinstance(value, float | decimal.Decimal):
        if math.isnan(value):
            return None
        if math.isfinite(value):
            return decimal_text(decimal.Decimal(repr(value)) if isinstance(value, float) else value)
    raise NoAnswer(f"{value!r:.80} is a {type(value).__name__}, and no answer; give a text, a number or a list")


def decimal_text(number: decimal.Decimal) -> str:
    """
    >>> [decimal_text(decimal.Decimal(number)) for number in ("2.0", "1E+3", "-0.50")]
    ['2', '1000', '-0.5']
    """
    if abs(number.adjusted()) > 40:
        raise NoAnswer(f"{number!s:.80} is a number that nobody would write out; give a text")
    text = format(number, "f")
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text in ("-0", "") else text
