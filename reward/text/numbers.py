"""English words for numbers."""

from __future__ import annotations

_SMALL = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
)
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety"
#: The place of a word is its number.
SMALL = tuple(_SMALL.split())
#: From twenty to ninety.
TENS = tuple(_TENS.split())


def number_words(first: int, last: int) -> dict[str, int]:
    """The words of the numbers from ``first`` to ``last``, which is at most 19.

    >>> number_words(2, 3)
    {'two': 2, 'three': 3}
    """
    return {SMALL[number]: number for number in range(first, last + 1)}
