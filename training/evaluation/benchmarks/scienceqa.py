"""ScienceQA (Lu et al. 2022): 4,241 test questions of school books, 2,017 of them with an image.

Read as its repository has it (``data/scienceqa/problems.json`` and ``images``), as Parquet of the hub, or as
VLMEvalKit's TSV.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from string import ascii_uppercase
from typing import Any, ClassVar, Literal

from training.errors import DataError
from training.evaluation import benchmark_files, image_tables, option_letters
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
    picture_names,
)
from training.evaluation.image_tables import TableRow
from training.evaluation.option_letters import Rule
from training.evaluation.places import Files
from training.evaluation.question import Picture

_PROBLEMS = "problems.json"
#: The hub's folder with all questions goes before that with those that have an image.
_FILES = ("data/{split}-*.parquet", "ScienceQA-FULL/{split}-*.parquet", "ScienceQA-IMG/{split}-*.parquet",
          "{split}-*.parquet", "ScienceQA_{upper}.tsv", "ScienceQA*.tsv", "*.tsv", "*.parquet")  # fmt: skip
_HIGH_SCHOOL = 7


@dataclass(frozen=True)
class Scienceqa(MultipleChoice):
    """ScienceQA. ``parser``: official is LLaVA's script, which most papers run.

    Args:
        split: which of the three; of the hub's files, which names are looked for.
        text_only: ask the questions without an image too, in words alone.
    """

    split: Literal["test", "val", "train"] = "test"
    text_only: bool = False
    name: ClassVar[str] = "scienceqa"
    version: ClassVar[str] = "1"
    title: ClassVar[str] = "ScienceQA"
    files: ClassVar[tuple[str, ...]] = (_PROBLEMS, *TABLES)
    given_out: ClassVar[Files] = Files(
        marks=(_PROBLEMS, "ScienceQA*.tsv"),
        source="github.com/lupantech/ScienceQA (data/scienceqa)",
        places=("ScienceQA/data/scienceqa",),
        own=TABLES,
    )
    rules: ClassVar[Mapping[str, Rule]] = {
        "official": option_letters.scienceqa_llava,
        "vlmevalkit": option_letters.vlmevalkit,
        "lmms_eval": option_letters.scienceqa_lmms_eval,
    }

    def words(self, choice: Choice) -> str:
        hint = f"Context: {choice.hint}\n" if choice.hint else ""
        return f"{hint}{choice.question}\n{lettered(choice)}\n{DIRECTLY}"

    def read(self, data: Path) -> Read:
        pictures: dict[str, Picture] = {}
        if self.file is None and (data / _PROBLEMS).is_file():
            paths = [data / _PROBLEMS]
            choices = self._of_problems(data / _PROBLEMS)
        else:
            names = {"split": "validation" if self.split == "val" else self.split, "upper": self.split.upper()}
            paths = image_tables.choose(data, self.file, [form.format(**names) for form in _FILES], "scienceqa.file")
            choices = []
            for number, row in enumerate(image_tables.read(paths)):
                images = dict(picture_names(row, str(number)))
                pictures |= images
                choices.append(_of_row(row, str(number), tuple(images)))
        asked = [choice for choice in choices if choice.images or self.text_only]
        return Read(asked, paths, pictures, {"without an image": len(choices) - len(asked)})

    def _of_problems(self, path: Path) -> list[Choice]:
        problems = benchmark_files.whole(path)
        if not isinstance(problems, dict):
            raise DataError(f"{path} is no object with a problem for each id; give the official file")
        choices = []
        for id, problem in problems.items():
            where = f"{path}, problem {id}"
            split, image = benchmark_files.take(problem, ("split", "image"), where)
            if split == self.split:
                images = (f"images/{split}/{id}/{image}",) if image else ()
                choices.append(_choice(problem, id, images, where))
        return choices


def _of_row(row: TableRow, number: str, images: tuple[str, ...]) -> Choice:
    """Of the hub's tables, which have lists of ``choices``, or of VLMEvalKit's, which have a column for each letter."""
    if "choices" in row.cells:
        return _choice(row.cells, number, images, row.where)
    options = options_of_row(row)
    return Choice(
        id=row.text("index"),
        question=row.text("question"),
        options=options,
        answer=checked_answer(row.maybe("answer"), options, row.where),
        images=images,
        hint=row.maybe("hint"),
        groups=(group("category", row.maybe("category")),) if row.maybe("category") else (),
    )


def _choice(problem: Mapping[str, Any], id: str, images: tuple[str, ...], where: str) -> Choice:
    """
    Raises:
        DataError: a key is missing, or the answer is none of the choices.
    """
    keys = ("question", "choices", "answer", "hint", "subject", "grade")
    question, texts, answer, hint, subject, grade = benchmark_files.take(problem, keys, where)
    if (
        not isinstance(texts, list)
        or not isinstance(answer, int)
        or not 0 <= answer < len(texts) <= len(ascii_uppercase)
    ):
        raise DataError(
            f"{where}: the answer {answer!r} is not the place of one of its choices; give the official file"
        )
    year = str(grade).removeprefix("grade")
    years = () if not year.isdecimal() else ("grades_7_12" if int(year) >= _HIGH_SCHOOL else "grades_1_6",)
    return Choice(
        id=id,
        question=str(question),
        options=dict(zip(ascii_uppercase, map(str, texts), strict=False)),
        answer=ascii_uppercase[answer],
        images=images,
        hint=str(hint or ""),
        groups=(group("subject", str(subject)), *years),
    )
