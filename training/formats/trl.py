"""TRL's vision preference data, which is also what the pipeline publishes.

Without ``prompt``, the messages that chosen and rejected start with in common are the prompt. A text in the column
``system`` stands before it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.errors import DataError
from training.formats.row import Preference, place_images, split, turns, untagged_answer, with_system
from training.formats.schema import Schema, Sign


def convert(row: Mapping[str, Any], images: int) -> Preference:
    sides = {column: _conversation(row, column) for column in ("prompt", "chosen", "rejected") if column in row}
    if "prompt" in sides:
        prompt, chosen, rejected = sides["prompt"], sides["chosen"], sides["rejected"]
    else:
        prompt, chosen, rejected = split(sides["chosen"], sides["rejected"])
    prompt = with_system(prompt, row.get("system"))
    return Preference(
        place_images(prompt, images), untagged_answer(chosen, "chosen"), untagged_answer(rejected, "rejected")
    )


def _conversation(row: Mapping[str, Any], column: str) -> list[dict[str, Any]]:
    if isinstance(row[column], str):
        raise DataError(
            f"column {column} is not conversational (value {row[column]!r:.80}); write it as "
            '[{"role": "user", "content": "..."}], or if all three are plain texts, rename prompt to question'
        )
    return turns(row[column], column)


SCHEMA = Schema(
    name="trl",
    signs=(
        Sign(frozenset({"prompt", "chosen", "rejected"}), lacks=frozenset({"img_path"})),
        Sign(
            frozenset({"chosen", "rejected"}),
            lacks=frozenset({"prompt", "question", "img_path", "conversations", "messages"}),
        ),
    ),
    reads=("prompt", "chosen", "rejected", "system"),
    convert=convert,
)
