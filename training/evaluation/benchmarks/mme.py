"""MME (Fu et al. 2023): two yes/no questions about each of 1,187 images, ten subtasks of perception, four of cognition.

The numbers are those of its ``calculation.py``. ``MME_Benchmark_release_version`` has a folder for each subtask. Some
hold ``images`` and ``questions_answers_YN``, others have both side by side; ``NAME.txt`` has the two questions about
the image ``NAME``, each with a tab and ``Yes`` or ``No`` behind it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import ClassVar, Literal, get_args

from training.errors import DataError
from training.evaluation import benchmark_files
from training.evaluation.benchmark import Benchmark, Opened
from training.evaluation.benchmarks import pope
from training.evaluation.places import Files
from training.evaluation.question import Answer, Question, pairs
from training.evaluation.ratio import Term
from training.evaluation.tally import Linear, Tally

# fmt: off
Subtask = Literal[
    "existence", "count", "position", "color", "posters", "celebrity", "scene", "landmark", "artwork", "OCR",
    "commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning",
]
# fmt: on
SUBTASKS: tuple[Subtask, ...] = get_args(Subtask)
PERCEPTION, COGNITION = SUBTASKS[:10], SUBTASKS[10:]
#: Of each subtask, and of all questions together.
METRICS = (*pope.AVERAGED, "accuracy_plus")
#: The metrics that are no shares, and the most that each can be.
_SCORES = {"perception": 2000, "cognition": 800, "total": 2800, **{f"{subtask}_score": 200 for subtask in SUBTASKS}}
_IMAGES = frozenset({".jpg", ".jpeg", ".png"})


@dataclass(frozen=True)
class Mme(Benchmark):
    """MME from its published folders.

    Args:
        subtasks: which are asked. What sums up others is null unless all of those were asked.
        suffix: stands behind every question; MME's own already end with "Please answer yes or no."
        limit: so many images, as many of each subtask as its files allow; all, if None.
        seed: which they are.
    """

    subtasks: tuple[Subtask, ...] = SUBTASKS
    suffix: str = ""
    limit: int | None = None
    seed: int = 0
    name: ClassVar[str] = "mme"
    version: ClassVar[str] = "1"
    title: ClassVar[str] = "MME"
    files: ClassVar[tuple[str, ...]] = ("*/*.txt", "*/questions_answers_YN/*.txt")
    given_out: ClassVar[Files] = Files(
        marks=tuple(f"{subtask}/{texts}*.txt" for subtask in SUBTASKS for texts in ("", "questions_answers_YN/")),
        source="MME_Benchmark_release_version.zip (huggingface.co/datasets/darkyarding/MME)",
        places=("MME_Benchmark_release_version/MME_Benchmark", "MME_Benchmark_release_version"),
    )
    own_images: ClassVar[bool] = True
    parser: ClassVar[str] = "official"
    headline: ClassVar[tuple[str, ...]] = (*_SCORES, "accuracy", "accuracy_plus", "yes_ratio", "unparseable_rate")
    units: ClassVar[Mapping[str, str]] = {name: f"0 to {most}" for name, most in _SCORES.items()}

    def open(self, data: Path) -> Opened:
        subtasks = [subtask for subtask in SUBTASKS if subtask in self.subtasks]
        versions = {"subtasks": "all" if len(subtasks) == len(SUBTASKS) else ", ".join(subtasks)}
        return Opened(self.questions(data), self.score, versions)

    def questions(self, data: Path) -> list[Question]:
        """Two about each image, in the order of ``SUBTASKS`` and of the images' names.

        Raises:
            DataError: the folder of a subtask or an image is missing, or a file does not hold two questions.
        """
        by_subtask = [_questions(data, subtask, self.suffix) for subtask in SUBTASKS if subtask in self.subtasks]
        images = [sorted({question.image for question in questions}) for questions in by_subtask]
        drawn_images = _draw(images, self.limit, self.seed)
        return [question for questions in by_subtask for question in questions if question.image in drawn_images]

    def score(self, questions: Sequence[Question], answers: Mapping[str, Answer]) -> Tally:
        """``SUBTASK_METRIC`` for each subtask, ``METRIC`` over all questions, and the scores: ``SUBTASK_score``, which
        is accuracy + accuracy_plus in percent, and the sums ``perception``, ``cognition`` and ``total``. All of a
        subtask without an answer is null, and so is each sum that it belongs to.

        ``accuracy_plus`` is the share of images whose questions both got the right answer, among those of which both
        were answered. An answer that ``reading`` cannot read is wrong, and in neither precision nor recall.

        Raises:
            ValueError: ids differ.
        """
        answered, counts = pairs(questions, answers)
        rows: list[tuple[str, dict[str, Term]]] = []
        right: dict[tuple[str, str], list[bool]] = {}
        for question, _, text in answered:
            subtask, truth = question.truth["subtask"], question.truth["answer"]
            label = reading(text)
            terms = {**pope.terms(truth, label), "unparseable_rate": (float(label is None), 1.0)}
            rows.append((question.image, _with_overall(subtask, terms)))
            right.setdefault((subtask, question.image), []).append(label == truth)
        rows += [
            (image, _with_overall(subtask, {"accuracy_plus": (float(all(both)), 1.0)}))
            for (subtask, image), both in right.items()
            if len(both) == 2
        ]
        names = [*METRICS, *(f"{subtask}_{name}" for subtask in SUBTASKS for name in METRICS)]
        sums = {"perception": PERCEPTION, "cognition": COGNITION, "total": SUBTASKS}
        linear = {name: _score(subtasks) for name, subtasks in sums.items()}
        linear |= {f"{subtask}_score": _score([subtask]) for subtask in SUBTASKS}
        return Tally.of(rows, names, linear, counts)


def reading(text: str) -> Literal["yes", "no"] | None:
    """What ``calculation.py`` takes an answer for: the first four characters, in lower case, hold "yes", or else "no".
    None is what it calls "other", and counts as wrong.

    >>> [reading(text) for text in ("Yes, it is.", "know", "It is: yes", "**Yes**", "  no", "   no")]
    ['yes', 'no', None, None, 'no', None]
    """
    start = text.lower()[:4]
    return "yes" if "yes" in start else "no" if "no" in start else None


def _score(subtasks: Sequence[str]) -> Linear:
    return Linear({f"{subtask}_{name}": 100.0 for subtask in subtasks for name in ("accuracy", "accuracy_plus")})


def _with_overall(subtask: str, terms: Mapping[str, Term]) -> dict[str, Term]:
    """The terms for the metrics over all questions, and for those of the subtask."""
    return {**terms, **{f"{subtask}_{name}": term for name, term in terms.items()}}


def _questions(data: Path, subtask: str, suffix: str) -> list[Question]:
    """
    Raises:
        DataError: see ``Mme.questions``.
    """
    folder = data / subtask
    if not folder.is_dir():
        raise DataError(
            f"there is no folder {folder}; put the subtask {subtask} of MME there, or name those that are there, such "
            "as --option mme.subtasks=[existence,count]"
        )
    texts = _inner_folder(folder, "questions_answers_YN")
    pictures = _inner_folder(folder, "images")
    images = {path.stem: path for path in sorted(pictures.iterdir()) if path.suffix.lower() in _IMAGES}
    questions = []
    for path in sorted(path for path in texts.glob("*.txt") if not path.name.startswith(".")):
        if path.stem not in images:
            raise DataError(f"{path} asks about an image that is not there; put {path.stem}.jpg or .png in {pictures}")
        image = images[path.stem].relative_to(data).as_posix()
        for place, (text, answer) in enumerate(_question_pair(path), 1):
            truth = {"subtask": subtask, "answer": answer}
            questions.append(Question(f"{subtask}/{path.stem}:{place}", image, text + suffix, truth))
    if not questions:
        raise DataError(f"{texts} holds no questions; put the subtask's NAME.txt there, one for each image")
    return questions


def _inner_folder(folder: Path, name: str) -> Path:
    """Where a subtask keeps its texts or its images: in a folder of their own, or in its own."""
    inner = folder / name
    return inner if inner.is_dir() else folder


def _question_pair(path: Path) -> list[tuple[str, str]]:
    """The two questions of a file, each with its answer "yes" or "no".

    Raises:
        DataError: it does not hold two of them.
    """
    lines = [(number, line.strip()) for number, line in enumerate(benchmark_files.text(path).split("\n"), 1)]
    question_pair = []
    for number, line in filter(lambda numbered: numbered[1], lines):
        question, tab, answer = line.partition("\t")
        if not tab or answer.lower() not in ("yes", "no"):
            raise DataError(f"{path}, line {number}: write the question, a tab, and Yes or No; give the official file")
        question_pair.append((question, answer.lower()))
    if len(question_pair) != 2:
        raise DataError(f"{path} holds {len(question_pair)} questions, not two; give the official file")
    return question_pair


def _draw(images: Sequence[Sequence[str]], limit: int | None, seed: int) -> frozenset[str]:
    """So many images of several subtasks in turn, so that as few as possible go without; all, if None."""
    mixed = [random.Random(f"mme:{seed}:{place}").sample(names, len(names)) for place, names in enumerate(images)]
    turns = [image for turn in zip_longest(*mixed) for image in turn if image is not None]
    return frozenset(turns if limit is None else turns[: max(limit, 0)])
