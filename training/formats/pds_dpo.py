"""LLaVA's JSON twice: ``conversations`` with the chosen answer, ``rejected_conversations`` with the rejected one.

PDS-DPO and POVID publish it, and HA-DPO's pairs are commonly passed on in it. A text in the column ``system`` stands
before both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.base.conversations import SIDES
from training.formats.row import Preference, parts_by_tags, split, turns, untagged_answer, with_system
from training.formats.schema import Schema, Sign


def convert(row: Mapping[str, Any], images: int) -> Preference:
    prompt, chosen, rejected = split(*(turns(row[name], name) for name in SIDES))
    prompt = with_system(prompt, row.get("system"))
    return Preference(
        parts_by_tags(prompt, images), untagged_answer(chosen, SIDES[0]), untagged_answer(rejected, SIDES[1])
    )


SCHEMA = Schema(
    name="pds_dpo",
    signs=(Sign(frozenset(SIDES)),),
    reads=(*SIDES, "system"),
    convert=convert,
)
