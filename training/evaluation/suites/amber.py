"""AMBER from its official files: ``annotations.json``, ``relation.json``, ``safe_words.txt`` and ``query/*.json``.

That is the folder ``data`` of github.com/junyangwang0410/AMBER.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from reward.text.yes_no import PARSERS
from training.errors import DataError
from training.evaluation import amber, files
from training.evaluation.asked import Answered, Asked, pairs
from training.evaluation.ratio import Term
from training.evaluation.tally import Linear, Tally
from training.evaluation.words.lemmas import NltkNouns
from training.evaluation.words.similarity import Similarity
from training.evaluation.words.singular import singular
from training.evaluation.words.treebank import tokens

VERSION = "1"
_GENERATIVE = "generative"


class Nouns(Protocol):
    """The nouns of a text as lemmas, in order. ``version`` names what finds them."""

    version: str

    def __call__(self, text: str) -> list[str]: ...


class EveryWord:
    """Without a tagger: every word in lower case and in the singular, nouns or not.

    AMBER's vocabulary decides which of them count, so verbs that look like its nouns ("can", "watch") do as well. Its
    numbers are not comparable with published ones.
    """

    version = "every-word@2"

    def __call__(self, text: str) -> list[str]:
        return [singular(token.text.lower()) for token in tokens(text)]


#: By the name that an option uses. Built when called: the first needs NLTK.
NOUNS: Mapping[str, Callable[[], Nouns]] = {"nltk": NltkNouns, "every_word": EveryWord}


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
    associations = files.whole(data / "relation.json")
    if not isinstance(associations, dict) or not all(isinstance(of, list) for of in associations.values()):
        raise DataError(f"{data / 'relation.json'} is no object of lists; give the official file")
    safe = files.text(data / "safe_words.txt").split("\n")
    return Lists({word: tuple(map(str, of)) for word, of in associations.items()}, frozenset(safe) - {""})


def describe(data: Path) -> list[Asked]:
    """The descriptions: query ``query/query_generative.json``.

    Raises:
        DataError: a file is missing or malformed, or an object is not in ``relation.json``.
    """
    known = read_lists(data).associations
    asked = []
    for id, image, query, noted in _queries(data, "query_generative.json"):
        if noted["type"] != _GENERATIVE:
            raise DataError(f"{data}: query {id} is to be described, but annotated as {noted['type']!r}")
        truth, made_up = files.take(noted, ("truth", "hallu"), f"{data / 'annotations.json'}, id {id}")
        lost = [word for word in (*truth, *made_up) if word not in known]
        if lost:
            raise DataError(f"{data / 'annotations.json'}, id {id}: {lost[0]!r} is not in relation.json")
        asked.append(Asked(id, image, query, {"truth": truth, "hallu": made_up}))
    return asked


def ask(data: Path, suffix: str = "") -> list[Asked]:
    """The yes/no questions, ``query/query_discriminative.json``, with ``suffix`` behind each (the official has none).

    Raises:
        DataError: a file is missing or malformed.
    """
    asked = []
    for id, image, query, noted in _queries(data, "query_discriminative.json"):
        if noted["truth"] not in ("yes", "no"):
            raise DataError(f"{data / 'annotations.json'}, id {id}: truth is neither 'yes' nor 'no'")
        asked.append(Asked(id, image, query + suffix, {"type": noted["type"], "truth": noted["truth"]}))
    return asked


def score_descriptions(
    asked: Sequence[Asked], answers: Mapping[str, Answered], lists: Lists, nouns: Nouns, similarity: Similarity
) -> Tally:
    """``amber.GENERATIVE`` over all descriptions.

    Raises:
        ValueError: ids differ.
    """
    known = amber.vocabulary(lists.associations)
    done, counts = pairs(asked, answers)
    rows = (
        (
            one.image,
            amber.described(
                [noun for noun in nouns(text) if noun in known],
                one.truth["truth"],
                one.truth["hallu"],
                lists.associations,
                lists.safe,
                similarity,
            ),
        )
        for one, _, text in done
    )
    return Tally.of(rows, amber.GENERATIVE, counts=counts)


def score_answers(asked: Sequence[Asked], answers: Mapping[str, Answered], parser: str = "exact") -> Tally:
    """``amber.DISCRIMINATIVE`` over all questions, and ``GROUP_METRIC`` over those of each group.

    ``parser`` is "exact", AMBER's own, or one of those of POPE, which read more than the bare word.

    Raises:
        ValueError: ids differ, or ``parser`` is unknown.
    """
    if parser != "exact" and parser not in PARSERS:
        raise ValueError(f"parser={parser!r} is unknown; use one of exact, {', '.join(PARSERS)}")
    read = amber.exact if parser == "exact" else PARSERS[parser]
    done, counts = pairs(asked, answers)
    rows = []
    for one, _, text in done:
        terms = amber.answered(one.truth["truth"], read(text))
        of_groups: dict[str, Term] = dict(terms)
        for group in amber.groups_of(one.truth["type"]):
            of_groups |= {f"{group}_{name}": term for name, term in terms.items()}
        rows.append((one.image, of_groups))
    groups = ("", *(f"{group}_" for group in amber.ALL_GROUPS))
    return Tally.of(rows, [group + name for group in groups for name in amber.DISCRIMINATIVE], counts=counts)


def together(descriptions: Tally, answers: Tally) -> Tally:
    """Both parts as one, with ``amber_score`` = (1 - chair + f1) / 2, both about the same images.

    Raises:
        ValueError: the images differ.
    """
    if descriptions.images != answers.images:
        odd = sorted(set(descriptions.images) ^ set(answers.images))[0]
        raise ValueError(f"image {odd!r} is only in one part; AMBER's score needs both about every image")
    counts = {
        f"{part}_{name}": count
        for part, tally in (("descriptions", descriptions), ("questions", answers))
        for name, count in tally.counts.items()
    }
    linear = {"amber_score": Linear({"chair": -1, "f1": 1}, constant=1, divisor=2)}
    return Tally(answers.images, {**descriptions.sums, **answers.sums}, linear, counts)


def _queries(data: Path, name: str) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """(id, image, query, its annotation)."""
    annotations = data / "annotations.json"
    noted = {}
    for row in files.whole(annotations):
        id, _, _ = files.take(row, ("id", "type", "truth"), str(annotations))
        noted[id] = row
    path = data / "query" / name
    for number, row in enumerate(files.whole(path), 1):
        id, image, query = files.take(row, ("id", "image", "query"), f"{path}, item {number}")
        if id not in noted:
            raise DataError(f"{path}, item {number}: id {id} is not in {annotations}; use files of one release")
        yield str(id), str(image), str(query), noted[id]
