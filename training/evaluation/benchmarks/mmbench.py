"""MMBench (Liu et al. 2023): multiple choice with its options in every rotation; right is what is right in all of them.

Read as OpenCompass gives it out, ``MMBench_DEV_EN.tsv`` and the like, or as Parquet of the hub. The row of index i has
its rotations at i + 1,000,000 * k.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from training.errors import DataError
from training.evaluation import image_tables, option_letters
from training.evaluation.benchmarks.multiple_choice import (
    DIRECTLY,
    METRICS,
    TABLES,
    Choice,
    MultipleChoice,
    Read,
    checked_answer,
    group,
    keep_first,
    lettered,
    options_of_row,
    picture_names,
)
from training.evaluation.image_tables import TableRow
from training.evaluation.option_letters import Rule
from training.evaluation.places import Files
from training.evaluation.question import Picture

_FILES = (
    *("MMBench_DEV_EN.tsv", "MMBench_DEV_EN_V11.tsv", "MMBench*.tsv", "*.tsv"),
    *("en/dev-*.parquet", "data/dev-*.parquet", "*.parquet"),
)
_TURN = 1_000_000


@dataclass(frozen=True)
class Mmbench(MultipleChoice):
    """MMBench's development split. ``parser``: official is VLMEvalKit, whose authors are MMBench's."""

    name: ClassVar[str] = "mmbench"
    version: ClassVar[str] = "1"
    title: ClassVar[str] = "MMBench"
    files: ClassVar[tuple[str, ...]] = TABLES
    given_out: ClassVar[Files] = Files(
        marks=("MMBench*.tsv", "en/dev-*.parquet"), source="MMBench_DEV_EN.tsv of OpenCompass", own=TABLES
    )
    headline: ClassVar[tuple[str, ...]] = ("circular_accuracy", *METRICS)
    rules: ClassVar[Mapping[str, Rule]] = {
        "official": option_letters.vlmevalkit,
        "vlmevalkit": option_letters.vlmevalkit,
        "lmms_eval": option_letters.mmbench_lmms_eval,
    }

    def words(self, choice: Choice) -> str:
        hint = f"{choice.hint} " if choice.hint else ""
        return f"{hint}{choice.question} There are several options:\n{lettered(choice)}\n\n{DIRECTLY}"

    def read(self, data: Path) -> Read:
        paths = image_tables.choose(data, self.file, _FILES, "mmbench.file")
        rows = list(image_tables.read(paths))
        first = [_first_order(row) for row in rows]
        rotated = any(index != row.text("index") for index, row in zip(first, rows, strict=True))
        pictures: dict[str, Picture] = {}
        choices = []
        for index, row in zip(first, rows, strict=True):
            images = dict(picture_names(row, index))
            if not images:
                raise DataError(f"{row.where} has no image; download it again")
            keep_first(pictures, images)
            options = options_of_row(row)
            kinds = {"category": row.maybe("category"), "l2": row.maybe("l2-category") or row.maybe("L2-category")}
            choices.append(
                Choice(
                    id=row.text("index"),
                    question=row.text("question"),
                    options=options,
                    answer=checked_answer(row.maybe("answer"), options, row.where),
                    images=tuple(images),
                    hint=row.maybe("hint"),
                    groups=tuple(group(kind, name) for kind, name in kinds.items() if name),
                    rotation=index if rotated else None,
                )
            )
        return Read(choices, paths, pictures)


def _first_order(row: TableRow) -> str:
    """The index of the question whose options this row has in some order.

    Raises:
        DataError: the row's index is no number.
    """
    index = row.maybe("g_index") or row.text("index")
    if not index.isdecimal():
        raise DataError(f"{row.where}: the index {index!r} is no number; give the official file")
    return str(int(index) % _TURN)
