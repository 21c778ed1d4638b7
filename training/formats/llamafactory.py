"""LLaMA-Factory's ranking data: ``conversations`` (``messages`` in its openai shape) with two answers beside it, or the
two conversations of its v1.

A text in the column ``system`` stands before the conversation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.errors import DataError
from training.formats.row import Preference, parts_by_tags, split, turns, untagged_answer, with_system
from training.formats.schema import Schema, Sign


def convert(row: Mapping[str, Any], images: int) -> Preference:
    before = next((column for column in ("conversations", "messages") if column in row), None)
    if before is not None:
        prompt, chosen, rejected = turns(row[before], before), row["chosen"], row["rejected"]
        names = ("chosen", "rejected")
    else:
        names = ("chosen_messages", "rejected_messages")
        prompt, chosen, rejected = split(*(turns(row[name], name) for name in names))
    if prompt[-1]["role"] != "user":
        raise DataError(
            f"column {before or names[0]} has a prompt that ends with a turn of "
            f"{prompt[-1]['role']}; it must end with the human's, and the answers stand in {' and '.join(names)}"
        )
    prompt = with_system(prompt, row.get("system"))
    return Preference(
        parts_by_tags(prompt, images), untagged_answer(chosen, names[0]), untagged_answer(rejected, names[1])
    )


SCHEMA = Schema(
    name="llamafactory",
    signs=(
        Sign(frozenset({"conversations", "chosen", "rejected"})),
        Sign(frozenset({"messages", "chosen", "rejected"}), lacks=frozenset({"prompt"})),
        Sign(frozenset({"chosen_messages", "rejected_messages"})),
    ),
    reads=("conversations", "messages", "chosen", "rejected", "chosen_messages", "rejected_messages", "system"),
    convert=convert,
)
