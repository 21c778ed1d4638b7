"""What scorers with a model have in common: each distinct conversation is measured once, and an error says whose it
is."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from reward.models.conversation import BadConversation, Conversation
from reward.scorers.protocol import Row

_DTYPES = ("auto", "float32", "bfloat16", "float16")


def check_options(batch_size: int, dtype: str) -> None:
    """
    Raises:
        ValueError: an option is out of range.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size={batch_size} must be at least 1")
    if dtype not in _DTYPES:
        raise ValueError(f"dtype={dtype!r} is none of {', '.join(_DTYPES)}")


def score_each(
    rows: Sequence[Row],
    measure: Callable[[list[Conversation]], Sequence[float | None]],
    what: str,
    images: bool = True,
) -> list[list[float | None]]:
    """The value of each candidate of each row, as the answer to the row's prompt; of what does not fit None.

    ``measure`` gets conversations of which none is twice, with the images of the rows or without; ``what`` it gives is
    named in errors.

    Raises:
        ValueError: a candidate cannot be measured; the message names row and candidate.
    """
    by_row = [[_conversation(row, candidate["text"], images) for candidate in row["candidates"]] for row in rows]
    first: dict[Conversation, str] = {}
    for r, of_row in enumerate(by_row):
        for c, conversation in enumerate(of_row):
            first.setdefault(conversation, f"row {r}, candidate {c}")
    distinct = list(first)
    try:
        values = measure(distinct) if distinct else []
    except BadConversation as error:
        raise ValueError(f"{first[distinct[error.index]]}: {error.reason}") from error
    measured = dict(zip(distinct, values, strict=True))
    for conversation, value in measured.items():
        if value is not None and not math.isfinite(value):
            raise ValueError(f"{first[conversation]}: the {what} is {value}; try dtype=float32")
    return [[measured[conversation] for conversation in of_row] for of_row in by_row]


def _conversation(row: Row, answer: str, images: bool) -> Conversation:
    messages = tuple((message["role"], message["content"]) for message in row["prompt"])
    return Conversation(tuple(row["images"]) if images else (), (*messages, ("assistant", answer)))
