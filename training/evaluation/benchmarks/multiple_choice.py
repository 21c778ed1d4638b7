"""What benchmarks of multiple choice share: how a question is put, which option an answer picks, and the metrics.

A benchmark says how its files are read, as ``Choice``s. ``style`` is how a harness writes a question down, ``parser``
which script decides what an answer picks (``option_letters``); both move the numbers.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from string import ascii_uppercase
from typing import Any, ClassVar, Literal

from training.errors import DataError
from training.evaluation.benchmark import Benchmark, Opened
from training.evaluation.image_tables import TableRow
from training.evaluation.option_letters import Rule
from training.evaluation.question import Answer, Picture, Question, pairs
from training.evaluation.ratio import Term
from training.evaluation.tally import Tally

Parser = Literal["official", "lmms_eval", "vlmevalkit"]
Style = Literal["lmms_eval", "vlmevalkit"]
METRICS = ("accuracy", "accuracy_with_guesses", "chance", "unparseable_rate")
#: What lmms-eval ends a question with, as LLaVA does.
DIRECTLY = "Answer with the option's letter from the given choices directly."
#: Where tables lie: VLMEvalKit's, and those of a repository of the hub.
TABLES = ("*.tsv", "*.parquet", "*/*.parquet")


@dataclass(frozen=True, slots=True)
class Choice:
    """A question with its options by letter; ``answer`` is the letter of the right one. One without options is open,
    and ``answers`` are the right ones.

    Args:
        images: names of those that are shown.
        groups: what it counts for beside everything, such as ``subject_physics``.
        rotation: the question of which this is one order of the options; None where a file has one order of each.
    """

    id: str
    question: str
    options: Mapping[str, str]
    answer: str
    images: tuple[str, ...]
    hint: str = ""
    groups: tuple[str, ...] = ()
    answers: tuple[str, ...] = ()
    rotation: str | None = None


@dataclass(frozen=True)
class Read:
    """What a benchmark found in ``files``: ``pictures`` by name are those inside of them, ``left_out`` says how many
    questions are not asked, by what is wrong with them."""

    choices: Sequence[Choice]
    files: Sequence[Path]
    pictures: Mapping[str, Picture] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class MultipleChoice(Benchmark):
    """
    Args:
        parser: which script reads an answer.
        style: which harness's words a question is put in.
        suffix: stands behind every question.
        file: which of the files in the folder is read: a path in it, or a pattern.
    """

    parser: Parser = "official"
    style: Style = "lmms_eval"
    suffix: str = ""
    file: str | None = None
    rules: ClassVar[Mapping[str, Rule]]
    own_images: ClassVar[bool] = True
    headline: ClassVar[tuple[str, ...]] = METRICS
    neutral: ClassVar[frozenset[str]] = frozenset({"chance"})

    @property
    def prompt(self) -> str:
        """What results tell of the text of the questions."""
        return f"in the words of {self.style}" + (f", and {self.suffix!r} behind it" if self.suffix else "")

    def read(self, data: Path) -> Read:
        """
        Raises:
            DataError: a file is missing or malformed.
        """
        raise NotImplementedError

    def words(self, choice: Choice) -> str:
        """The question as lmms-eval writes it down."""
        return f"{choice.question}\n{lettered(choice)}\n{DIRECTLY}"

    def is_right(self, text: str, truth: Mapping[str, Any]) -> bool | None:
        """None if the parser cannot read the answer."""
        letter = self.rules[self.parser](text, truth["options"])
        return None if letter is None else letter == truth["answer"]

    def open(self, data: Path) -> Opened:
        content = self.read(data)
        left_out = ", ".join(f"{count} {reason}" for reason, count in content.left_out.items() if count)
        questions = [self._question(choice) for choice in content.choices]
        names = [path.name for path in content.files]
        versions = {"file": names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"}
        versions |= {"left out": left_out} if left_out else {}
        return Opened(questions, self.score, versions, content.pictures, content.files)

    def questions(self, data: Path) -> list[Question]:
        return list(self.open(data).questions)

    def score(self, questions: Sequence[Question], answers: Mapping[str, Answer]) -> Tally:
        """``METRICS`` and ``GROUP_accuracy`` of each group; where a file has its questions with the options in several
        orders, ``circular_accuracy`` and ``GROUP_circular_accuracy`` too.

        An answer that cannot be read is wrong. ``accuracy_with_guesses`` gives it 1 / options instead, which is what a
        script that draws an option gives it in the mean; ``chance`` is that of all questions. In the circular sense a
        question is right if it is in every order; one that failed in some order is left out.

        Raises:
            ValueError: ids differ.
        """
        answered, counts = pairs(questions, answers)
        rows: list[tuple[str, dict[str, Term]]] = []
        rights: dict[str, bool] = {}
        for question, _, text in answered:
            truth = question.truth
            right = self.is_right(text, truth)
            rights[question.id] = bool(right)
            chance = 1 / len(truth["options"]) if truth["options"] else 0.0
            terms = {
                "accuracy_with_guesses": (chance if right is None else float(right), 1.0),
                "chance": (chance, 1.0),
                "unparseable_rate": (float(right is None), 1.0),
            }
            accuracies = dict.fromkeys(_of_groups("accuracy", truth), (float(bool(right)), 1.0))
            rows.append((question.image, {**terms, **accuracies}))
        names = [*METRICS]
        for orders in _by_rotation(questions):
            metrics = _of_groups("circular_accuracy", orders[0].truth)
            names += metrics
            if all(order.id in rights for order in orders):
                term = (float(all(rights[order.id] for order in orders)), 1.0)
                rows.append((orders[0].image, dict.fromkeys(metrics, term)))
        return Tally.of(rows, names, counts=counts)

    def _question(self, choice: Choice) -> Question:
        words = self.words(choice) if self.style == "lmms_eval" else _words_of_vlmevalkit(choice)
        truth = {
            "options": dict(choice.options),
            "answer": choice.answer,
            "answers": list(choice.answers),
            "groups": list(choice.groups),
            "rotation": choice.rotation,
        }
        image = choice.images[0] if choice.images else choice.id
        return Question(choice.id, image, words + self.suffix, truth, choice.images)


def lettered(choice: Choice) -> str:
    return "\n".join(f"{letter}. {option}" for letter, option in choice.options.items())


def options_of_row(row: TableRow, form: str = "{}") -> dict[str, str]:
    """The options of a table that has a column for each letter.

    >>> options_of_row(TableRow("", {"choice_a": "cat", "choice_b": None, "choice_c": 3}, {}), "choice_{}")
    {'A': 'cat', 'C': '3'}
    """
    columns = {letter: form.format(letter if form == "{}" else letter.lower()) for letter in ascii_uppercase}
    return {letter: row.text(column) for letter, column in columns.items() if row.maybe(column)}


def picture_names(row: TableRow, name: str) -> list[tuple[str, Picture]]:
    """The pictures in the column ``image`` of a row with what they are called: in a TSV file after the index of the row
    that has them, as several rows may have one; else ``name``, with a number if there are several."""
    pictures = row.pictures.get("image", ())
    if row.shared:
        return [(str(picture["path"]).rpartition("#")[2], picture) for picture in pictures]
    return [(name if len(pictures) == 1 else f"{name}:{place}", picture) for place, picture in enumerate(pictures, 1)]


def keep_first(pictures: dict[str, Picture], images: Mapping[str, Picture]) -> None:
    """Add the pictures of a row to those of the rows before it, which go before."""
    for name, picture in images.items():
        pictures.setdefault(name, picture)


def checked_answer(answer: str, options: Mapping[str, str], where: str) -> str:
    """
    Raises:
        DataError: there is none, as in test splits, or it is no option.
    """
    if answer in options:
        return answer
    if not answer or answer == "?":
        raise DataError(
            f"{where} has no answer: nobody but the authors' server can score this split; give the one for development "
            "or validation"
        )
    raise DataError(
        f"{where}: the answer {answer!r} is none of its options {', '.join(options)}; give the official file"
    )


def group(kind: str, name: str) -> str:
    """
    >>> group("category", "finegrained_perception (instance-level)")
    'category_finegrained_perception_instance_level'
    """
    return f"{kind}_{re.sub(r'[^0-9a-z]+', '_', name.lower()).strip('_')}"


def _of_groups(metric: str, truth: Mapping[str, Any]) -> list[str]:
    return [metric, *(f"{name}_{metric}" for name in truth["groups"])]


def _by_rotation(questions: Sequence[Question]) -> list[list[Question]]:
    """The orders of each question that is there in several."""
    orders: dict[str, list[Question]] = {}
    for question in questions:
        if question.truth["rotation"] is not None:
            orders.setdefault(question.truth["rotation"], []).append(question)
    return list(orders.values())


def _words_of_vlmevalkit(choice: Choice) -> str:
    hint = f"Hint: {choice.hint}\n" if choice.hint else ""
    options = f"Options:\n{lettered(choice)}\nPlease select the correct answer from the options above. \n"
    return f"{hint}Question: {choice.question}\n{options if choice.options else ''}"
