"""SEED-Bench (Li et al. 2023): 14,233 questions of multiple choice about images, in nine dimensions.

Read from ``SEED-Bench.json`` with the folder ``SEED-Bench-image``, Parquet of the hub, or VLMEvalKit's TSV. Questions
about videos are left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from training.errors import DataError
from training.evaluation import benchmark_files, image_tables, option_letters
from training.evaluation.benchmarks.multiple_choice import (
    TABLES,
    Choice,
    MultipleChoice,
    Parser,
    Read,
    checked_answer,
    group,
    keep_first,
    options_of_row,
    picture_names,
)
from training.evaluation.image_tables import TableRow
from training.evaluation.option_letters import Rule
from training.evaluation.places import Files
from training.evaluation.question import Picture

_JSON = "SEED-Bench.json"
_FILES = ("data/test-*.parquet", "test-*.parquet", "SEEDBench_IMG.tsv", "SEEDBench_IMG*.tsv", "*.tsv", "*.parquet")
_IMAGES = "SEED-Bench-image"
#: By the number that the files give them; from 10 on they are of videos.
_DIMENSIONS = {
    1: "Scene Understanding",
    2: "Instance Identity",
    3: "Instance Attributes",
    4: "Instance Location",
    5: "Instances Counting",
    6: "Spatial Relation",
    7: "Instance Interaction",
    8: "Visual Reasoning",
    9: "Text Understanding",
}


@dataclass(frozen=True)
class Seed(MultipleChoice):
    """SEED-Bench's questions about images. Its own script ranks the options by their likelihood; asked in words,
    LLaVA's (``official``) wants the letter and nothing else, and lmms-eval takes the first character."""

    parser: Parser = "lmms_eval"
    name: ClassVar[str] = "seed"
    version: ClassVar[str] = "1"
    title: ClassVar[str] = "SEED-Bench"
    files: ClassVar[tuple[str, ...]] = (_JSON, *TABLES)
    given_out: ClassVar[Files] = Files(
        marks=(_JSON, "SEEDBench_IMG*.tsv"),
        source="huggingface.co/datasets/AILab-CVC/SEED-Bench",
        places=("SEED-Bench",),
        own=TABLES,
    )
    rules: ClassVar[Mapping[str, Rule]] = {
        "official": option_letters.whole,
        "vlmevalkit": option_letters.vlmevalkit,
        "lmms_eval": option_letters.first_character,
    }

    def read(self, data: Path) -> Read:
        if self.file is None and (data / _JSON).is_file():
            paths = [data / _JSON]
            rows = list(_of_json(data / _JSON))
        else:
            paths = image_tables.choose(data, self.file, _FILES, "seed.file")
            rows = list(image_tables.read(paths))
        pictures: dict[str, Picture] = {}
        choices = []
        for row in rows:
            if row.maybe("data_type") not in ("image", ""):
                continue
            name = row.maybe("data_id") or row.maybe("index") or row.text("question_id")
            images = dict(picture_names(row, name))
            keep_first(pictures, images)
            choices.append(_choice(row, tuple(images) or (f"{_IMAGES}/{name}",)))
        return Read(choices, paths, pictures, {"about videos": len(rows) - len(choices)})


def _of_json(path: Path) -> Iterator[TableRow]:
    """
    Raises:
        DataError: it has no list of questions.
    """
    (questions,) = benchmark_files.take(benchmark_files.whole(path), ("questions",), str(path))
    if not isinstance(questions, list):
        raise DataError(f"{path}: questions is no list; give the official file")
    for number, question in enumerate(questions, 1):
        where = f"{path}, question {number}"
        benchmark_files.take(question, ("question_id", "question", "answer", "data_type", "data_id"), where)
        yield TableRow(where, question, {})


def _choice(row: TableRow, images: tuple[str, ...]) -> Choice:
    options = options_of_row(row, "choice_{}") or options_of_row(row)
    dimension: Any = row.maybe("question_type_id") or row.maybe("category")
    name = _DIMENSIONS.get(int(dimension), dimension) if dimension.isdecimal() else dimension
    return Choice(
        id=row.maybe("question_id") or row.text("index"),
        question=row.text("question"),
        options=options,
        answer=checked_answer(row.maybe("answer"), options, row.where),
        images=images,
        groups=(group("dimension", name),) if name else (),
    )
