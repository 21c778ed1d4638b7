"""RLAIF-V as published: one image, a question and two answers, all plain texts.

Others add a column ``system``, whose text stands before the question.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.formats.row import Preference, parts_by_tags, question, untagged_answer, with_system
from training.formats.schema import Schema, Sign


def convert(row: Mapping[str, Any], images: int) -> Preference:
    messages = with_system(question(row["question"], "question"), row.get("system"))
    prompt = parts_by_tags(messages, images, fill=True)
    return Preference(prompt, untagged_answer(row["chosen"], "chosen"), untagged_answer(row["rejected"], "rejected"))


SCHEMA = Schema(
    name="rlaif_v",
    signs=(Sign(frozenset({"question", "chosen", "rejected"})),),
    reads=("question", "chosen", "rejected", "system"),
    convert=convert,
)
