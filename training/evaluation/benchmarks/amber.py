"""AMBER from its official files: ``annotations.json``, ``relation.json``, ``safe_words.txt`` and ``query/*.json``.

``amber_formula`` counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

from reward.text.yes_no import PARSERS, Parser
from training.errors import DataError
from training.evaluation import benchmark_files
from training.evaluation.benchmark import Benchmark, Opened
from training.evaluation.benchmarks import amber_formula
from training.evaluation.places import Files
from training.evaluation.question import Answer, Question, pairs
from training.evaluation.ratio import Term
from training.evaluation.tally import Linear, Tally
from training.evaluation.words.lemmas import NOUNS, Nouns
from training.evaluation.words.similarity import SIMILARITIES, Similarity

VERSION = "1"
TITLE = "AMBER, official files"
SOURCE = "github.com/junyangwang0410/AMBER (data)"
PLACES, IMAGE_PLACES = ("AMBER/data",), ("AMBER/image", "AMBER/images")
_GENERATIVE = "generative"


@dataclass(frozen=True)
class AmberGenerative(Benchmark):
    """AMBER's descriptions.

    Args:
        nouns: what finds the nouns of a text.
        similarity: what compares them with the objects that are there.
    """

    nouns: Literal["nltk", "every_word"] = "nltk"
    similarity: Literal["spacy", "exact"] = "spacy"
    name: ClassVar[str] = "amber_generative"
    version: ClassVar[str] = VERSION
    title: ClassVar[str] = TITLE
    folder: ClassVar[str] = "amber"
    files: ClassVar[tuple[str, ...]] = ("*.json", "safe_words.txt", "query/query_generative.json")
    given_out: ClassVar[Files] = Files(("query/query_generative.json",), SOURCE, PLACES)
    image_places: ClassVar[tuple[str, ...]] = IMAGE_PLACES
    headline: ClassVar[tuple[str, ...]] = amber_formula.GENERATIVE
    lower: ClassVar[frozenset[str]] = frozenset({"chair", "hal", "cog"})

    def open(self, data: Path) -> Opened:
        questions = describe(data)
        nouns, similarity = NOUNS[self.nouns](), SIMILARITIES[self.similarity]()
        score = partial(score_descriptions, lists=read_lists(data), nouns=nouns, similarity=similarity)
        return Opened(questions, score, {"tagger": nouns.version, "similarity": similarity.version})


@dataclass(frozen=True)
class AmberDiscriminative(Benchmark):
    """AMBER's yes/no questions.

    Args:
        parser: ``exact``, AMBER's own, or one of those of POPE, which read more than the bare word.
        suffix: stands behind every question; the official ones have none.
    """

    parser: Literal["exact", Parser] = "exact"
    suffix: str = ""
    name: ClassVar[str] = "amber_discriminative"
    version: ClassVar[str] = VERSION
    title: ClassVar[str] = TITLE
    folder: ClassVar[str] = "amber"
    files: ClassVar[tuple[str, ...]] = ("annotations.json", "query/query_discriminative.json")
    given_out: ClassVar[Files] = Files(("query/query_discriminative.json",), SOURCE, PLACES)
    image_places: ClassVar[tuple[str, ...]] = IMAGE_PLACES
    headline: ClassVar[tuple[str, ...]] = (
        *("accuracy", "precision", "recall", "f1"),
        *("existence_f1", "attribute_f1", "relation_f1", "unparseable_rate"),
    )

    def questions(self, data: Path) -> list[Question]:
        """
        Raises:
            DataError: a file is missing or malformed.
        """
        questions = []
        for id, image, query, noted in _queries(data, "query_discriminative.json"):
            if noted["truth"] not in ("yes", "no"):
                raise DataError(
                    f"{data / 'annotations.json'}, id {id}: truth is neither 'yes' nor 'no'; give the official file"
                )
            truth = {"type": noted["type"], "truth": noted["truth"]}
            questions.append(Question(id, image, query + self.suffix, truth))
        return questions

    def score(self, questions: Sequence[Question], answers: Mapping[str, Answer]) -> Tally:
        """``amber_formula.DISCRIMINATIVE`` over all questions, and ``GROUP_METRIC`` over those of each group.

        Raises:
            ValueError: ids differ.
        """
        read = amber_formula.exact if self.parser == "exact" else PARSERS[self.parser]
        done, counts = pairs(questions, answers)
        rows = []
        for question, _, text in done:
            terms = amber_formula.answer_terms(question.truth["truth"], read(text))
            of_groups: dict[str, Term] = dict(terms)
            for group in amber_formula.groups_of(question.truth["type"]):
                of_groups |= {f"{group}_{name}": term for name, term in terms.items()}
            rows.append((question.image, of_groups))
        groups = ("", *(f"{group}_" for group in amber_formula.ALL_GROUPS))
        names = [group + name for group in groups for name in amber_formula.DISCRIMINATIVE]
        return Tally.of(rows, names, counts=counts)


@dataclass(frozen=True, slots=True)
class Lists:
    """``associations``: object -> words that also stand for it. ``safe``: words never held against a description."""

    associations: Mapping[str, tuple[str, ...]]
    safe: frozenset[str]


def read_lists(data: Path) -> Lists:
    """
    Raises:
        DataError: a file is missing or malformed.
    """
    associations = benchmark_files.whole(data / "relation.json")
    if not isinstance(associations, dict) or not all(isinstance(of, list) for of in associations.values()):
        raise DataError(f"{data / 'relation.json'} is no object of lists; give the official file")
    safe = benchmark_files.text(data / "safe_words.txt").split("\n")
    return Lists({word: tuple(map(str, of)) for word, of in associations.items()}, frozenset(safe) - {""})


def describe(data: Path) -> list[Question]:
    """The descriptions: query ``query/query_generative.json``.

    Raises:
        DataError: a file is missing or malformed, or an object is not in ``relation.json``.
    """
    associations = read_lists(data).associations
    questions = []
    for id, image, query, noted in _queries(data, "query_generative.json"):
        if noted["type"] != _GENERATIVE:
            raise DataError(
                f"{data}: query {id} is to be described, but annotated as {noted['type']!r}; use files of one release"
            )
        where = f"{data / 'annotations.json'}, id {id}"
        lists = benchmark_files.take(noted, ("truth", "hallu"), where)
        truth, made_up = (
            benchmark_files.texts(of, where, key) for key, of in zip(("truth", "hallu"), lists, strict=True)
        )
        lost = [word for word in (*truth, *made_up) if word not in associations]
        if lost:
            raise DataError(f"{where}: {lost[0]!r} is not in relation.json; use files of one release")
        questions.append(Question(id, image, query, {"truth": truth, "hallu": made_up}))
    return questions


def score_descriptions(
    questions: Sequence[Question], answers: Mapping[str, Answer], lists: Lists, nouns: Nouns, similarity: Similarity
) -> Tally:
    """``amber_formula.GENERATIVE`` over all descriptions.

    Raises:
        ValueError: ids differ.
    """
    vocabulary = amber_formula.vocabulary(lists.associations)
    done, counts = pairs(questions, answers)
    rows = (
        (
            question.image,
            amber_formula.description_terms(
                [noun for noun in nouns(text) if noun in vocabulary],
                question.truth["truth"],
                question.truth["hallu"],
                lists.associations,
                lists.safe,
                similarity,
            ),
        )
        for question, _, text in done
    )
    return Tally.of(rows, amber_formula.GENERATIVE, counts=counts)


def together(descriptions: Tally, answers: Tally) -> Tally:
    """Both parts as one, with ``amber_score`` = (1 - chair + f1) / 2, both about the same images.

    Raises:
        ValueError: the images differ.
    """
    if descriptions.images != answers.images:
        odd = sorted(set(descriptions.images) ^ set(answers.images))[0]
        raise ValueError(f"image {odd!r} is only in one part; AMBER's score needs both about every image")
    parts = {"descriptions": descriptions, "questions": answers}
    counts = {f"{part}_{name}": count for part, tally in parts.items() for name, count in tally.counts.items()}
    failed = [
        None if tally.failed is None else [f"{part} {id}" for id in tally.failed] for part, tally in parts.items()
    ]
    lost = None if None in failed else tuple(sorted(id for ids in failed for id in ids or ()))
    linear = {"amber_score": Linear({"chair": -1, "f1": 1}, constant=1, divisor=2)}
    return Tally(answers.images, {**descriptions.sums, **answers.sums}, linear, counts, lost)


def _queries(data: Path, name: str) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """(id, image, query, its annotation)."""
    annotations = data / "annotations.json"
    noted = {}
    for row in benchmark_files.listed(annotations):
        id, kind, _ = benchmark_files.take(row, ("id", "type", "truth"), str(annotations))
        if not isinstance(kind, str):
            raise DataError(f"{annotations}, id {id}: type is {kind!r:.80}, which is no text; give the official file")
        noted[str(id)] = row
    path = data / "query" / name
    for number, row in enumerate(benchmark_files.listed(path), 1):
        id, image, query = benchmark_files.take(row, ("id", "image", "query"), f"{path}, item {number}")
        if str(id) not in noted:
            raise DataError(f"{path}, item {number}: id {id} is not in {annotations}; use files of one release")
        yield str(id), str(image), str(query), noted[str(id)]
