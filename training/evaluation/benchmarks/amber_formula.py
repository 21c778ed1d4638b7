"""AMBER (Wang et al. 2023), as its ``inference.py`` computes it, which is not always what the paper defines.

Descriptions, pooled over all of them:

=======  ==============================================================================================================
chair    nouns that match nothing that is there / all nouns of AMBER's vocabulary, repeats and safe words included
cover    true objects that were named / true objects
hal      descriptions with at least one such noun / descriptions
cog      objects people tend to make up here that were named / such objects (the paper divides by the nouns instead)
=======  ==============================================================================================================

Questions: the positive class is "no", the answer that resists a hallucination. So recall is over the questions whose
truth is "no", and a model that always says "yes" has a recall of 0. An answer counts if it is exactly "Yes" or "No".
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Literal

from training.evaluation.ratio import Term
from training.evaluation.tally import Tally
from training.evaluation.words.similarity import Similarity

GENERATIVE = ("chair", "cover", "hal", "cog")
DISCRIMINATIVE = ("accuracy", "precision", "recall", "f1", "unparseable_rate")
#: Groups of questions, and which of the data's types each holds. Types that are not listed are relations.
GROUPS: Mapping[str, Collection[str]] = {
    "existence": {"discriminative-hallucination"},
    "state": {"discriminative-attribute-state"},
    "number": {"discriminative-attribute-number"},
    "action": {"discriminative-attribute-action"},
}
ATTRIBUTES = ("state", "number", "action")
#: Every group that gets metrics of its own, besides the one of all questions.
ALL_GROUPS = ("existence", "attribute", *ATTRIBUTES, "relation")
#: More alike than this is the same object.
ALIKE = 0.8
_EXACT: Mapping[str, Literal["yes", "no"]] = {"Yes": "yes", "No": "no"}
#: Every denominator of the original begins here, so that none is 0.
_START = 0.001


def description_terms(
    nouns: Sequence[str],
    truth: Sequence[str],
    made_up: Sequence[str],
    associations: Mapping[str, Sequence[str]],
    safe: Collection[str],
    similarity: Similarity,
) -> dict[str, Term]:
    """What one description adds to each metric.

    Args:
        nouns: lemmas in the order of the text, only those of ``vocabulary(associations)``.
        truth, made_up: what is there, and what people tend to see though it is not. A word may occur twice.
        associations: object -> words that also stand for it.
        safe: words that are never held against a description, and count as nouns all the same.

    Every noun is looked up in this order: is it safe; is it a true object or stands for one; else it marks the made-up
    object that it equals, and the first that it is like; and if it is like a true object, that one is covered, and the
    noun is forgiven even if it marked a made-up one.
    """
    there, tempting = _slots(truth, associations), _slots(made_up, associations)
    covered: set[int] = set()
    met: set[int] = set()
    wrong = 0
    for noun in nouns:
        if noun in safe:
            continue

        def same(word: str, noun: str = noun) -> bool:
            return word == noun

        def alike(word: str, noun: str = noun) -> bool:
            return similarity(noun, word) > ALIKE

        if (true := _first(there, same)) is None:
            met.update(slot for slot in (_first(tempting, same), _first(tempting, alike)) if slot is not None)
            true = _first(there, alike)
        if true is None:
            wrong += 1
        else:
            covered.add(true)
    return {
        "chair": (wrong, len(nouns)),
        "cover": (len(covered), len(truth)),
        "hal": (float(wrong > 0), 1),
        "cog": (len(met), len(made_up)),
    }


def vocabulary(associations: Mapping[str, Sequence[str]]) -> frozenset[str]:
    """Every noun that AMBER looks at."""
    return frozenset(associations).union(*associations.values())


def groups_of(kind: str) -> tuple[str, ...]:
    """The groups that a question of the data's type ``kind`` counts in, besides that of all questions.

    >>> groups_of("discriminative-attribute-state"), groups_of("relation")
    (('attribute', 'state'), ('relation',))
    """
    group = next((name for name, kinds in GROUPS.items() if kind in kinds), "relation")
    return ("attribute", group) if group in ATTRIBUTES else (group,)


def exact(text: str) -> Literal["yes", "no"] | None:
    """The original's reading.

    >>> exact("No"), exact("no"), exact("Yes.")
    ('no', None, None)
    """
    return _EXACT.get(text)


def answer_terms(truth: str, answer: str | None) -> dict[str, Term]:
    """What one answer adds to each metric; ``answer`` is "yes", "no" or None, which is wrong and not a "no"."""
    hit = answer == "no" and truth == "no"
    return {
        "accuracy": (float(answer == truth), 1),
        "precision": (float(hit), float(answer == "no")),
        "recall": (float(hit), float(truth == "no")),
        "f1": (2.0 * hit, float(answer == "no") + float(truth == "no")),
        "unparseable_rate": (float(answer is None), 1),
    }


def printout(tally: Tally) -> dict[str, float]:
    """The percentages that the original prints, for a comparison digit by digit.

    They are rounded to one place, every denominator is too large by 0.001 (by three times that over all attributes),
    and F1 is computed from the rounded percentages with 0.0001 (existence: 0.001) more in its denominator. Metrics of
    groups without a question are 0 there, and so they are here.
    """
    shown = {name: _percent(tally, name) for name in GENERATIVE if name in tally.sums}
    if "hal" in shown:
        # The original counts the descriptions without a wrong noun and subtracts their share from 100.
        wrong, all_of_them = tally.sums["hal"].sum(axis=0)
        shown["hal"] = round(100 - (all_of_them - wrong) / (all_of_them + _START) * 100, 1)
    for group in ("", *(f"{name}_" for name in ALL_GROUPS)):
        if f"{group}accuracy" not in tally.sums:
            continue
        start = _START * len(ATTRIBUTES) if group == "attribute_" else _START
        for name in ("accuracy", "precision", "recall"):
            shown[group + name] = _percent(tally, group + name, start)
        precision, recall = shown[f"{group}precision"] / 100, shown[f"{group}recall"] / 100
        more = 0.001 if group == "existence_" else 0.0001
        shown[f"{group}f1"] = round(2 * precision * recall / (precision + recall + more) * 100, 1)
    return shown


def _percent(tally: Tally, name: str, start: float = _START) -> float:
    above, below = tally.sums[name].sum(axis=0)
    return round(float(above / (below + start) * 100), 1)


def _slots(objects: Sequence[str], associations: Mapping[str, Iterable[str]]) -> list[tuple[str, int]]:
    """(word, position of the object that it stands for), words that are associated before the objects themselves."""
    associated = [(word, at) for at, name in enumerate(objects) for word in associations[name]]
    return associated + [(name, at) for at, name in enumerate(objects)]


def _first(slots: Sequence[tuple[str, int]], fits: Callable[[str], bool]) -> int | None:
    return next((at for word, at in slots if fits(word)), None)
