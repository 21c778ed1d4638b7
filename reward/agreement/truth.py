"""Which of two texts is better, by exact facts or by a label, and what kind of error makes the difference."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reward.scorers.objects import judge, truth_of
from reward.text.numbers import number_words
from reward.text.object_vocabulary import Vocabulary

#: The kind of error of a pair of which a label says no more than which text is better.
LABEL = "label"
#: The parts of ``quality`` in the order in which they decide.
KINDS = ("object", "missing", "attribute", "count")
_NUMBERS = {"a": 1, "an": 1} | number_words(1, 8)
_WORD = re.compile(r"[a-z]+")

TextScores = Mapping[str, Sequence[float | None]]


@dataclass(frozen=True)
class Prompt:
    """``scores`` are aligned to ``texts``. ``label``: the first text is better than the second, with this kind of
    error in the second; None where facts decide. ``images`` is None where they are not known."""

    id: str
    images: tuple[bytes, ...] | None
    messages: tuple[tuple[str, str], ...]
    texts: tuple[str, ...]
    scores: TextScores
    facts: Mapping[str, Any] | None = None
    label: str | None = None


@dataclass(frozen=True, slots=True)
class Preference:
    """Indices into the texts of a prompt, and the kind of error that decides."""

    better: int
    worse: int
    kind: str


def preferences(prompt: Prompt, vocabulary: Vocabulary | None, attributes: frozenset[str]) -> list[Preference]:
    """All pairs of texts of which one is better, each once.

    Of an answered question the right answer is; the kind is the question's. Of a description the one with fewer
    hallucinated mentions is, then the one that covers more objects, and with a vocabulary then the one with fewer wrong
    attributes, then with fewer wrong counts; the kind is the first of these in which they differ.
    """
    if prompt.label is not None:
        return [Preference(0, 1, prompt.label)]
    right = prompt.scores.get("correctness") or ()
    kinds: tuple[str, ...] = KINDS
    bad: list[tuple[float, ...] | None]
    if any(value is not None for value in right):
        kinds, bad = (_question_kind(prompt),), [None if value is None else (-value,) for value in right]
    else:
        bad = [quality(prompt, index, vocabulary, attributes) for index in range(len(prompt.texts))]
    pairs = []
    for (a, first), (b, second) in itertools.combinations(enumerate(bad), 2):
        if first is None or second is None:
            continue
        decides = next((i for i, (x, y) in enumerate(zip(first, second, strict=True)) if x != y), None)
        if decides is not None:
            better, worse = (a, b) if first[decides] < second[decides] else (b, a)
            pairs.append(Preference(better, worse, kinds[decides]))
    return pairs


def quality(
    prompt: Prompt, index: int, vocabulary: Vocabulary | None, attributes: frozenset[str]
) -> tuple[float, ...] | None:
    """How bad a text is: (hallucinated mentions, -covered objects), and with a vocabulary also (wrong attributes, wrong
    counts). None where nothing is known."""
    if vocabulary is not None and prompt.facts:
        true = truth_of({"facts": prompt.facts}, vocabulary)
        if true is None:
            return None
        verdict = judge(prompt.texts[index], true, vocabulary, denied=False)
        wrong = wrong_details(prompt.texts[index], prompt.facts, vocabulary, attributes)
        return (len(verdict.hallucinated), -len(verdict.covered), *wrong)
    counted = [prompt.scores.get(f"objects.{name}") for name in ("hallucinated", "covered")]
    hallucinated, covered = (values[index] if values is not None else None for values in counted)
    return None if hallucinated is None or covered is None else (hallucinated, -covered)


def wrong_details(
    text: str, facts: Mapping[str, Any], vocabulary: Vocabulary, attributes: frozenset[str]
) -> tuple[int, int]:
    """Mentions of true objects with an attribute, and with a number, that is not the object's.

    Read from the three words before the mention: the last of them that is one of ``attributes``, and the last that is a
    number; "a" and "an" are one. Of several entries of one name an attribute is wrong if all have some and none has it,
    and a number if it is neither that of all of them nor that of those with the attribute.

    >>> words = Vocabulary("demo", "1", {"sun": "sun", "boats": "boat", "boat": "boat"})
    >>> seen = {"objects": [{"name": "boat", "count": 1, "attributes": ["red"]}]}
    >>> wrong_details("Two blue boats and a sun.", seen, words, frozenset({"red", "blue"}))
    (1, 1)
    """
    things: dict[str | None, list[Mapping[str, Any]]] = {}
    for thing in facts.get("objects") or ():
        things.setdefault(vocabulary.canonical(thing["name"]), []).append(thing)
    colours = counts = 0
    for mention in vocabulary.mentions(text):
        of_name = things.get(mention.name)
        if of_name is None:
            continue
        before = _WORD.findall(text[: mention.start].lower())[-3:]
        attribute = next((word for word in reversed(before) if word in attributes), None)
        number = next((_NUMBERS[word] for word in reversed(before) if word in _NUMBERS), None)
        like_it = [thing for thing in of_name if attribute in _attributes(thing)]
        colours += attribute is not None and not like_it and all(map(_attributes, of_name))
        known = [total for total in (_count(of_name), _count(like_it)) if total is not None]
        counts += number is not None and _count(of_name) is not None and number not in known
    return colours, counts


def _attributes(thing: Mapping[str, Any]) -> frozenset[str]:
    return frozenset(attribute.lower() for attribute in thing.get("attributes") or ())


def _count(things: Sequence[Mapping[str, Any]]) -> int | None:
    """How many they are; None where one entry does not say."""
    counts = [thing.get("count") for thing in things]
    return None if None in counts else sum(count for count in counts if count is not None)


def known_attributes(prompts: Sequence[Prompt]) -> frozenset[str]:
    """Every attribute that the facts of some prompt give to an object, in lower case."""
    return frozenset(
        attribute
        for prompt in prompts
        for thing in (prompt.facts or {}).get("objects") or ()
        for attribute in _attributes(thing)
    )


def _question_kind(prompt: Prompt) -> str:
    kind: str = (prompt.facts or {}).get("question_type") or "question"
    return "object" if kind == "existence" else kind
