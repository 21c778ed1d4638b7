"""MMMU (Yue et al. 2024): questions of 30 college subjects with one image or several; some have no options.

Read as Parquet of the hub, a folder for each subject or all together, or as VLMEvalKit's TSV. Images are shown in order
before the text, in which ``<image 1>`` stays where it stands.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any, ClassVar, Literal

from training.errors import DataError
from training.evaluation import image_tables, open_answers, option_letters
from training.evaluation.benchmarks.multiple_choice import (
    DIRECTLY,
    TABLES,
    Choice,
    MultipleChoice,
    Read,
    checked_answer,
    group,
    lettered,
    options_of_row,
)
from training.evaluation.image_tables import TableRow
from training.evaluation.option_letters import Rule
from training.evaluation.places import Files
from training.evaluation.question import Picture

_FILES = (
    *("data/{split}-*.parquet", "*/{split}-*.parquet", "{split}-*.parquet"),
    *("MMMU_DEV_VAL.tsv", "MMMU*.tsv", "*.tsv", "*.parquet"),
)
_TOKEN = re.compile(r"<image (\d+)>")
_BRIEFLY = "Answer the question using a single word or phrase."
_DOMAINS = {
    "art_and_design": ("Art", "Art_Theory", "Design", "Music"),
    "business": ("Accounting", "Economics", "Finance", "Manage", "Marketing"),
    "science": ("Biology", "Chemistry", "Geography", "Math", "Physics"),
    "health_and_medicine": (
        "Basic_Medical_Science",
        "Clinical_Medicine",
        "Diagnostics_and_Laboratory_Medicine",
        "Pharmacy",
        "Public_Health",
    ),
    "humanities_and_social_science": ("History", "Literature", "Sociology", "Psychology"),
    "tech_and_engineering": (
        "Agriculture",
        "Architecture_and_Engineering",
        "Computer_Science",
        "Electronics",
        "Energy_and_Power",
        "Materials",
        "Mechanical_Engineering",
    ),
}


@dataclass(frozen=True)
class Mmmu(MultipleChoice):
    """MMMU. ``parser``: lmms-eval has a copy of the official one.

    Args:
        split: validation (900 questions) or dev (150).
    """

    split: Literal["validation", "dev"] = "validation"
    name: ClassVar[str] = "mmmu"
    version: ClassVar[str] = "1"
    title: ClassVar[str] = "MMMU"
    files: ClassVar[tuple[str, ...]] = TABLES
    given_out: ClassVar[Files] = Files(
        marks=("Accounting/*.parquet", "MMMU*.tsv"),
        source="huggingface.co/datasets/MMMU/MMMU",
        places=("MMMU",),
        own=TABLES,
    )
    rules: ClassVar[Mapping[str, Rule]] = {
        "official": option_letters.mmmu,
        "vlmevalkit": option_letters.vlmevalkit,
        "lmms_eval": option_letters.mmmu,
    }

    def words(self, choice: Choice) -> str:
        if not choice.options:
            return f"{choice.question}\n\n{_BRIEFLY}"
        return f"{choice.question}\n{lettered(choice)}\n\n{DIRECTLY}"

    def is_right(self, text: str, truth: Mapping[str, Any]) -> bool | None:
        """Open questions by ``open_answers``; VLMEvalKit makes them a choice between the right answer and others."""
        if truth["options"]:
            return super().is_right(text, truth)
        if self.parser != "vlmevalkit":
            return open_answers.is_right(text, truth["answers"])
        letters = [option_letters.vlmevalkit(text, {"A": right, "B": "Other Answers"}) for right in truth["answers"]]
        return None if letters == [None] * len(letters) else "A" in letters

    def read(self, data: Path) -> Read:
        paths = image_tables.choose(data, self.file, [form.format(split=self.split) for form in _FILES], "mmmu.file")
        pictures: dict[str, Picture] = {}
        choices = []
        for row in image_tables.read(paths):
            if row.maybe("split") in ("", self.split):
                choice, shown = _choice(row)
                choices.append(choice)
                pictures |= shown
        return Read(choices, paths, pictures)


def _choice(row: TableRow) -> tuple[Choice, dict[str, Picture]]:
    """
    Raises:
        DataError: the options are no list, the answer is none of them, or an image is missing.
    """
    id, question, answer = row.text("id"), row.text("question"), row.maybe("answer")
    options = dict(zip(ascii_uppercase, _list(row, "options"), strict=False)) or options_of_row(row)
    is_open = not options or row.maybe("question_type") == "open"
    if is_open and answer in ("", "?"):
        checked_answer(answer, {}, row.where)
    shown = _shown(row, question + "".join(options.values()))
    return Choice(
        id=id,
        question=question,
        options={} if is_open else options,
        answer="" if is_open else checked_answer(answer, options, row.where),
        images=tuple(f"{id}:{number}" for number in shown),
        groups=_groups(id, row),
        answers=tuple(_answers(answer)) if is_open else (),
    ), {f"{id}:{number}": picture for number, picture in shown.items()}


def _shown(row: TableRow, text: str) -> dict[int, Picture]:
    """The images that the text has a place for, by number; the first, if it has none."""
    images = row.pictures.get("image", ())
    by_number = dict(enumerate(images, 1)) or {
        number: pictures[0] for number in range(1, 8) if (pictures := row.pictures.get(f"image_{number}", ()))
    }
    numbers = sorted({int(number) for number in _TOKEN.findall(text)}) or sorted(by_number)[:1]
    missing = [number for number in numbers if number not in by_number]
    if missing or not numbers:
        raise DataError(f"{row.where}: image {missing[0] if missing else 1} is missing; download it again")
    return {number: by_number[number] for number in numbers}


def _list(row: TableRow, key: str) -> list[str]:
    """
    Raises:
        DataError: it is no list, nor the text of one as Python writes it.
    """
    value = row.cells.get(key)
    if isinstance(value, str):
        try:
            value = ast.literal_eval(value)
        except (ValueError, SyntaxError) as error:
            raise DataError(f"{row.where}: {key} is no list ({error}); give the official file") from error
    if value is not None and not isinstance(value, list | tuple):
        # Of an object the letters alone would be the options.
        raise DataError(
            f"{row.where}: {key} is {value!r:.80}, which is no list; give ['a cat', 'a dog'], or a column A, B ..."
        )
    return [str(option) for option in value or ()]


def _answers(text: str) -> list[str]:
    """Those of an open question; several stand as a list of Python.

    >>> _answers("8"), _answers("['3/2', '1.5']")
    (['8'], ['3/2', '1.5'])
    """
    if text.startswith("["):
        try:
            return [str(answer) for answer in ast.literal_eval(text)] or [text]
        except (ValueError, SyntaxError):
            pass
    return [text]


def _groups(id: str, row: TableRow) -> tuple[str, ...]:
    """Subject and domain; ``validation_Art_Theory_7`` is of the subject ``Art_Theory``."""
    parts = id.split("_")
    subject = "_".join(parts[1:-1]) if len(parts) > 2 else row.maybe("category")
    domain = next((domain for domain, subjects in _DOMAINS.items() if subject in subjects), "")
    return tuple(group(kind, name) for kind, name in (("subject", subject), ("domain", domain)) if name)
