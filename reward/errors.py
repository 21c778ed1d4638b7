"""The root of every error that a user can meet, and how long a message may be."""

from __future__ import annotations

#: Characters of a message; of a longer one the middle is left out.
LONGEST = 2_000


class UserError(Exception):
    """Says what is wrong, where, and what to do about it. A command line prints that and ends with ``exit_code``."""

    exit_code = 2

    def __str__(self) -> str:
        return shortened(super().__str__())


def shortened(text: str, most: int = LONGEST) -> str:
    """
    >>> shortened("x" * 50 + "end", 40)
    'xxxxxxxxxx ... (38 characters) ... xxend'
    """
    if len(text) <= most:
        return text
    # The beginning says what and where, the end what to do.
    room = most - len(f" ... ({len(text)} characters) ... ")
    head = room * 2 // 3
    tail = room - head
    return f"{text[:head]} ... ({len(text) - head - tail} characters) ... {text[-tail:]}"
