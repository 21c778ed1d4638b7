"""How well the chosen text of a pair is told from the rejected one by a reader who is not shown the image.

A preference is learned from whatever tells the two sides apart. What can be told without looking can be learned
without looking: a model becomes better at such pairs without seeing better. ``measure`` trains a classifier on some of
the pairs and asks it about the others; 0.5 is chance, 1 means that the image is not needed.

It reads prompt, chosen and rejected text, and knows nothing of images but which pairs are about the same ones: those
are in one fold. It is a lower bound, as a stronger reader may see more in the same texts.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pipeline.blindness.contrasts import Clue, clues, contrasts
from pipeline.blindness.pair_texts import PairTexts
from pipeline.blindness.text_features import Floats, differences, scaled

Ints = np.ndarray[Any, np.dtype[np.int64]]

#: Changes whenever the same pairs may get other numbers.
VERSION = 1
FOLDS = 5
#: With fewer images than this, what a classifier finds is chance.
LEAST_IMAGES = 20
#: Half of the way from chance to certainty: from here on publishing warns.
HIGH = 0.75
#: What the most frequent parts of a kind leave.
OTHERS = "(others)"
_MOST_PARTS = 20
_Z = 1.959963984540054


@dataclass(frozen=True, slots=True)
class BlindAccuracy:
    """Of ``pairs`` about so many different ``images``, ``value`` is the share whose chosen text was told, a tie being
    half, with its 95 % ``interval``. Where it is not known it is None, and ``unknown`` says why."""

    pairs: int
    images: int
    value: float | None
    interval: tuple[float, float] | None
    unknown: str | None


@dataclass(frozen=True, slots=True)
class Blindness(BlindAccuracy):
    """Of all that were read of ``total`` pairs; ``parts`` says the same of those under each mark (kind of mark ->
    mark), told by the same classifier: the whole is the mean of its parts. ``clues`` are the words that say most."""

    total: int
    parts: Mapping[str, Mapping[str, BlindAccuracy]]
    clues: tuple[Clue, ...]

    @property
    def high(self) -> bool:
        return self.value is not None and self.value >= HIGH

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> Blindness:
        parts = {
            kind: {mark: BlindAccuracy(**_with_tuple(part)) for mark, part in of_kind.items()}
            for kind, of_kind in values["parts"].items()
        }
        named = tuple(Clue(**clue) for clue in values["clues"])
        return cls(**{**_with_tuple(values), "parts": parts, "clues": named})


def measure(pairs: Sequence[PairTexts], total: int | None = None) -> Blindness:
    """``pairs`` are all there are, or a sample of ``total``.

    Neither their order nor the names of their images change anything, nor does it matter which side is called chosen as
    long as it is the same side everywhere: what tells the worse text tells the better one. Rounded to four digits.

    >>> measure([PairTexts("a", "What is it?", "A sun.", "A moon.")]).unknown
    '1 images; 20 are needed'
    """
    pairs, group = _arranged(pairs)
    of_pairs = [list(contrasts(pair)) for pair in pairs]
    enough = len(set(group.tolist())) >= LEAST_IMAGES
    outcomes = _held_out(differences(pairs, of_pairs), group) if enough else None
    whole = _accuracy(outcomes, group)
    return Blindness(
        **asdict(whole),
        total=len(pairs) if total is None else total,
        parts=_parts(pairs, outcomes, group),
        clues=clues(of_pairs) if enough else (),
    )


def measure_by_values(pairs: Sequence[PairTexts], values: Floats) -> BlindAccuracy:
    """The same of a reader that says numbers: ``values`` is [pairs, numbers], of the chosen text less of the rejected
    one, such as log-probs. Which sign speaks for the chosen text, and what each number counts, is learned as well."""
    from scipy import sparse

    order = _order(pairs)
    group = _groups([pairs[i] for i in order])
    enough = len(set(group.tolist())) >= LEAST_IMAGES
    return _accuracy(_held_out(sparse.csr_matrix(scaled(values[order])), group) if enough else None, group)


def folds(groups: Sequence[str], number: int = FOLDS) -> Ints:
    """The fold of each pair: all of a group are in one, and which one follows from a hash.

    >>> folds(["a", "b", "a"], 2).tolist() in ([0, 1, 0], [1, 0, 1])
    True
    """
    order = sorted(set(groups), key=lambda group: hashlib.sha256(f"fold:{group}".encode()).digest())
    place = {group: i % number for i, group in enumerate(order)}
    return np.array([place[group] for group in groups], np.int64)


def interval(outcomes: Floats, group: Ints) -> tuple[float, float]:
    """Wilson's 95 % interval of the mean of ``outcomes`` (0 to 1), for as many independent ones as they are worth:
    those of a group may be alike. Unlike a bootstrap's it has a width where all are right.

    >>> interval(np.ones(20), np.arange(20))
    (0.8389, 1.0)
    """
    number, (_, place) = len(outcomes), np.unique(group, return_inverse=True)
    mean, groups = float(outcomes.mean()), int(place.max()) + 1
    off = np.bincount(place, outcomes - mean)
    variance = float((off**2).sum()) / number**2 * groups / max(groups - 1, 1)
    spread = mean * (1 - mean)
    worth = min(spread / variance, number) if variance > 0 and spread > 0 else groups
    middle = (mean + _Z**2 / (2 * worth)) / (1 + _Z**2 / worth)
    half = _Z / (1 + _Z**2 / worth) * math.sqrt(spread / worth + _Z**2 / (4 * worth**2))
    return _short(max(middle - half, 0.0)), _short(min(middle + half, 1.0))


def _arranged(pairs: Sequence[PairTexts]) -> tuple[list[PairTexts], Ints]:
    """In an order that follows from what they say, and the group of each."""
    ordered = [pairs[i] for i in _order(pairs)]
    return ordered, _groups(ordered)


def _order(pairs: Sequence[PairTexts]) -> list[int]:
    rank = _ranks(pairs)
    # Sides in alphabetical order first: were all labels turned, the order would be the same.
    return sorted(range(len(pairs)), key=lambda i: (*_said(pairs[i]), rank[pairs[i].images], pairs[i].chosen))


def _groups(pairs: Sequence[PairTexts]) -> Ints:
    rank = _ranks(pairs)
    return np.array([rank[pair.images] for pair in pairs], np.int64)


def _ranks(pairs: Sequence[PairTexts]) -> dict[str, int]:
    """A number for each name of images that depends on what is said about them, not on the name."""
    of_images: dict[str, list[tuple[str, ...]]] = {}
    for pair in pairs:
        of_images.setdefault(pair.images, []).append(_said(pair))
    return {images: i for i, images in enumerate(sorted(of_images, key=lambda images: sorted(of_images[images])))}


def _said(pair: PairTexts) -> tuple[str, ...]:
    return pair.prompt, *sorted((pair.chosen, pair.rejected))


def _held_out(rows: Any, group: Ints) -> Floats:
    """Of every pair, whether one tells it who has seen no pair of its fold: 1, 0, or 0.5 if it cannot say."""
    from scipy import sparse
    from sklearn.linear_model import LogisticRegression

    fold = folds([str(number) for number in group.tolist()])
    scores = np.zeros(len(group))
    for held in np.unique(fold):
        train, test = np.flatnonzero(fold != held), np.flatnonzero(fold == held)
        # Differences are all of one class. The row of zeros is the other that scikit-learn asks for: without an
        # intercept it weighs nothing, and chance is one half to the last digit.
        with_zeros = sparse.vstack([rows[train], sparse.csr_matrix((1, rows.shape[1]))])
        # liblinear runs in one thread: its sums do not depend on the machine's number of cores. Its dual form is
        # several times as fast where rows have thousands of entries; which side is likelier needs no more digits.
        model = LogisticRegression(solver="liblinear", dual=True, tol=0.01, fit_intercept=False, random_state=0)
        scores[test] = model.fit(with_zeros, [1] * len(train) + [0]).decision_function(rows[test])
    # What differs in the last digits alone is a tie.
    return (np.sign(np.round(scores, 9)) + 1) / 2


def _accuracy(outcomes: Floats | None, group: Ints) -> BlindAccuracy:
    """``outcomes`` are None where no classifier could be trained."""
    images = len(np.unique(group))
    if outcomes is None or images < LEAST_IMAGES:
        return BlindAccuracy(len(group), images, None, None, f"{images} images; {LEAST_IMAGES} are needed")
    return BlindAccuracy(len(group), images, _short(float(outcomes.mean())), interval(outcomes, group), None)


def _parts(pairs: Sequence[PairTexts], outcomes: Floats | None, group: Ints) -> dict[str, dict[str, BlindAccuracy]]:
    """The most frequent marks of each kind, in the order of their names; no kind that tells nothing apart."""
    parts: dict[str, dict[str, BlindAccuracy]] = {}
    for kind in sorted({kind for pair in pairs for kind in pair.marks}):
        counts = Counter(pair.marks[kind] for pair in pairs if kind in pair.marks)
        kept = {mark for mark, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_MOST_PARTS]}
        marks = np.array([_mark(pair, kind, kept) for pair in pairs], object)
        named = sorted(set(marks.tolist()) - {None, OTHERS}) + ([OTHERS] if OTHERS in marks else [])
        if len(named) > 1:
            places = {mark: np.flatnonzero(marks == mark) for mark in named}
            parts[kind] = {
                mark: _accuracy(outcomes[at] if outcomes is not None else None, group[at])
                for mark, at in places.items()
            }
    return parts


def _mark(pair: PairTexts, kind: str, kept: set[str]) -> str | None:
    mark = pair.marks.get(kind)
    return mark if mark is None or mark in kept else OTHERS


def _with_tuple(values: Mapping[str, Any]) -> dict[str, Any]:
    bounds = values["interval"]
    return {**values, "interval": tuple(bounds) if bounds is not None else None}


def _short(value: float) -> float:
    return round(value, 4) + 0.0  # no minus zero
