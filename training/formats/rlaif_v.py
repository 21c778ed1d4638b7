"""RLAIF-V as published: one image, a question and two answers, all plain texts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from training.formats.row import Preference, parts_by_tags, question, untagged_answer
from training.formats.schema import Schema, Sign


def convert(row: Mapping[str, Any], images: int) -> Preference:
    prompt = parts_by_tags(question(row["question"], "question"), images, fill=True)
    return Preference(prompt, untagged_answer(row["chosen"], "chosen"), untagged_answer(row["rejected"], "rejected"))


SCHEMA = Schema(
    name="rlaif_v",
    signs=(Sign(frozenset({"question", "chosen", "rejected"})),),
    reads=("question", "chosen", "rejected"),
    convert=convert,
)
