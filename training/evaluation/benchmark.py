"""What a benchmark is: what it asks, read from its own files, and how the answers are scored.

Each of ``training.evaluation.benchmarks`` is a frozen dataclass of this kind in a file of its own. Its fields are its
options. Some are given to every benchmark that has them: ``limit`` (about so many images) and ``seed`` say which images
it draws itself, ``ids`` which it is to take (``image_list``); ``prompt`` stands in place of its own words, ``suffix``
behind every question, and ``parser`` says how an answer is read; what they are is told with every number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from training.evaluation.places import Files
from training.evaluation.question import Answer, Picture, Question
from training.evaluation.tally import Tally

Score = Callable[[Sequence[Question], Mapping[str, Answer]], Tally]


@dataclass(frozen=True)
class Opened:
    """A benchmark with its files read.

    Args:
        versions: whatever its numbers depend on, such as a tagger, by name.
        pictures: those that the files themselves hold, by ``Question.image``; all others are files of their own.
        files: what questions and truths were made from, if not all that ``Benchmark.files`` match in its folder.
    """

    questions: Sequence[Question]
    score: Score
    versions: Mapping[str, str] = field(default_factory=dict)
    pictures: Mapping[str, Picture] = field(default_factory=dict)
    files: Sequence[Path] | None = None


class Benchmark:
    """One benchmark. It defines ``questions`` and ``score``, or ``open``.

    Attributes:
        name: what ``--suite`` and the results call it.
        version: raised whenever the same answers may give another number, or the same files other questions.
        title: what the results call its data; ``name`` if left out.
        folder: where its files lie, below the folder of all benchmarks; ``name`` if left out.
        files: patterns of the files that questions and truths are made from; their digest goes with every number.
        given_out: where the files lie as their authors give them out; if left out, they lie in ``folder`` alone.
        image_places: folders in which images lie as they are given out, such as ``coco/val2014`` (``places``).
        own_images: whether the images come with the files: what ``Question.image`` names is then in the same folder.
        source: where the files come from, if ``given_out`` does not say so.
        judged: whether answers need the judgement of a model (``Answer.judgement``).
        graded: whether a judgement is a number, which a file of judgements may then give as one.
        headline: of ours, the metrics that tables and plots show, in order; of others, these are all.
        units: of ours, those of metrics that are no share of anything.
        lower, neutral: metrics where less is better, and where neither more nor less is; of ours, more of any other is.
    """

    name: ClassVar[str]
    version: ClassVar[str]
    title: ClassVar[str] = ""
    folder: ClassVar[str] = ""
    files: ClassVar[tuple[str, ...]] = ("*",)
    given_out: ClassVar[Files | None] = None
    image_places: ClassVar[tuple[str, ...]] = ()
    own_images: ClassVar[bool] = False
    source: ClassVar[str] = ""
    judged: ClassVar[bool] = False
    graded: ClassVar[bool] = False
    headline: ClassVar[tuple[str, ...]] = ()
    units: ClassVar[Mapping[str, str]] = {}
    lower: ClassVar[frozenset[str]] = frozenset({"unparseable_rate"})
    neutral: ClassVar[frozenset[str]] = frozenset({"yes_ratio", "mean_length", "words", "sentences"})

    def parts(self) -> Mapping[str, Files]:
        """What it reads beside ``files``, by the option that names it: one that is None is set to where it lies."""
        return {}

    def questions(self, data: Path) -> Iterable[Question]:
        """What is asked, from the files in the folder ``data``.

        Raises:
            DataError: a file is missing or malformed.
        """
        raise NotImplementedError

    def score(self, questions: Sequence[Question], answers: Mapping[str, Answer]) -> Tally:
        """The metrics of the answers, by the ids of their questions.

        Raises:
            ValueError: ids differ, or a judgement is missing.
        """
        raise NotImplementedError

    def judge_prompt(self, question: Question, text: str) -> str | None:
        """What a judge is asked about an answer; None where it needs no judgement."""
        return None

    def open(self, data: Path) -> Opened:
        """Both at once, for a benchmark that reads answers with what it finds in ``data`` or has to load.

        Raises:
            DataError: a file or a package is missing, or a file is malformed.
        """
        return Opened(list(self.questions(data)), self.score)
