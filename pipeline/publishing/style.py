"""How alike the chosen and the rejected texts of pairs are written, whatever they say.

Training on preferences learns whatever tells the two sides apart. Pairs that differ in truth alone differ in nothing
that can be measured here: a classifier on the letters of a text, which does not see the names of objects, is no better
than chance; neither side is likelier to the model, or longer.

Descriptions and answers to questions are measured apart: what tells "Yes." from "No." is how often either is right, not
style. Imports scikit-learn only where it is needed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.blindness.measure_blindness import LEAST_IMAGES, Ints, folds
from pipeline.blindness.text_features import Floats, ngrams
from reward.text.object_vocabulary import Vocabulary

#: Changes whenever the same pairs may get other numbers.
VERSION = 1
#: Stands for every object of the vocabulary, in whatever form it is written.
MASK = "\N{OBJECT REPLACEMENT CHARACTER}"
_RESAMPLES = 500
_AN = re.compile(rf"\b(a)n(?=\s+{MASK})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class TextPair:
    """``group`` names the images: pairs about the same ones share it. ``logp_gap`` is the mean log-prob per token of
    the chosen text less that of the rejected one, in nats; None if it is not known."""

    group: str
    chosen: str
    rejected: str
    logp_gap: float | None = None


@dataclass(frozen=True, slots=True)
class Style:
    """``pairs`` there are, ``measured`` of them, about so many different images (``groups``).

    ``auc`` is that of the classifier, 0.5 where chosen and rejected texts are alike; ``auc_ci`` its 95 % bootstrap
    interval over groups; ``no_auc`` says why there is none. ``masked`` is the vocabulary that it did not see.

    Gaps are chosen less rejected: ``length_gap`` is the mean in words, ``logp_gap`` that of ``TextPair.logp_gap``
    over the ``logp_pairs`` that have one, with its ``logp_gap_quartiles`` (25, 50, 75 %). ``longer_wins`` is the
    share of pairs with the longer text chosen, of those that differ in words; ``likelier_wins`` the same for
    log-probs. ``edit_distance`` is the mean of ``edit_distance`` and ``edit_distance_quartiles`` its quartiles.
    """

    pairs: int
    measured: int
    groups: int
    auc: float | None
    auc_ci: tuple[float, float] | None
    no_auc: str | None
    masked: str | None
    length_gap: float | None
    longer_wins: float | None
    edit_distance: float | None
    edit_distance_quartiles: tuple[float, float, float] | None
    logp_pairs: int
    logp_gap: float | None
    logp_gap_quartiles: tuple[float, float, float] | None
    likelier_wins: float | None


def measure(pairs: Sequence[TextPair], vocabulary: Vocabulary | None = None, total: int | None = None) -> Style:
    """``pairs`` are all there are, or a sample of ``total``; their order changes nothing. Rounded to four digits, so
    that equal pairs give equal numbers on any machine.

    >>> measure([TextPair("a", "A sun.", "A red sun.")]).edit_distance
    0.3333
    """
    pairs = sorted(pairs, key=lambda pair: (pair.group, pair.chosen, pair.rejected))
    groups = [pair.group for pair in pairs]
    why = None if len(set(groups)) >= LEAST_IMAGES else f"{len(set(groups))} images; {LEAST_IMAGES} are needed"
    separability, interval = (None, None) if why is not None else _separability(pairs, vocabulary)
    words = np.array([len(pair.chosen.split()) - len(pair.rejected.split()) for pair in pairs], np.float64)
    edits = np.array([edit_distance(pair.chosen, pair.rejected) for pair in pairs], np.float64)
    gaps = np.array([pair.logp_gap for pair in pairs if pair.logp_gap is not None], np.float64)
    return Style(
        pairs=len(pairs) if total is None else total,
        measured=len(pairs),
        groups=len(set(groups)),
        auc=separability,
        auc_ci=interval,
        no_auc=why,
        masked=f"{vocabulary.name}@{vocabulary.version}" if vocabulary is not None else None,
        length_gap=_mean(words),
        longer_wins=_positive(words),
        edit_distance=_mean(edits),
        edit_distance_quartiles=_quartiles(edits),
        logp_pairs=len(gaps),
        logp_gap=_mean(gaps),
        logp_gap_quartiles=_quartiles(gaps),
        likelier_wins=_positive(gaps),
    )


def masked(text: str, vocabulary: Vocabulary | None) -> str:
    """The text with ``MASK`` for every object it names. "An" before one becomes "a", or it would tell objects apart.

    >>> masked("An anchor and two suns.", Vocabulary("v", "1", {"anchor": "anchor", "suns": "sun"})).count(MASK)
    2
    """
    if vocabulary is None:
        return text
    pieces, end = [], 0
    for mention in vocabulary.mentions(text):
        pieces += [text[end : mention.start], MASK]
        end = mention.end
    return _AN.sub(r"\1", "".join([*pieces, text[end:]]))


def decisions(features: Any, fold: Ints, model: Callable[[], Any] | None = None) -> Floats:
    """How sure a classifier is that each text is a chosen one, by one that has seen no text of its fold.

    ``features`` has the rows of all chosen texts, then those of all rejected ones, in the order of ``fold``. ``model``
    makes an untrained classifier with ``fit`` and ``decision_function``: by default a logistic regression.
    """
    labels = np.repeat([1, 0], len(fold))
    each = np.concatenate([fold, fold])
    scores = np.zeros(len(each))
    for held in np.unique(fold):
        out = each == held
        trained = (model or _regression)().fit(features[np.flatnonzero(~out)], labels[~out])
        scores[out] = trained.decision_function(features[np.flatnonzero(out)])
    # What differs in the last digits alone is a tie.
    return np.round(scores, 9)


def auc(chosen: Floats, rejected: Floats, weights: Floats | None = None) -> float:
    """The probability that a chosen value is above a rejected one; a tie counts one half. ``weights`` are of pairs.

    >>> auc(np.array([1.0, 0.0]), np.array([0.0, 0.0]))
    0.75
    """
    return _Ranked.of(chosen, rejected).auc(weights)


def edit_distance(first: str, second: str) -> float:
    """How many words must be put in, taken out or replaced, as a share of the longer text's (0 if both are empty).

    >>> edit_distance("a red sun", "a blue sun and more")
    0.6
    """
    a, b = first.split(), second.split()
    return levenshtein(a, b) / max(len(a), len(b), 1)


def levenshtein(a: Sequence[str], b: Sequence[str]) -> int:
    """The bit-parallel algorithm of Myers (1999) in the form of Hyyrö (2003): a column of differences is one integer.

    >>> levenshtein("kitten", "sitting")
    3
    """
    if not a:
        return len(b)
    equal: dict[str, int] = {}
    for i, word in enumerate(a):
        equal[word] = equal.get(word, 0) | 1 << i
    full, last = (1 << len(a)) - 1, 1 << (len(a) - 1)
    up, down, score = full, 0, len(a)  # where the column grows by one, and where it shrinks
    for word in b:
        same = equal.get(word, 0)
        diagonal = (((same & up) + up) ^ up) | same | down
        grows, shrinks = (down | ~(diagonal | up)) & full, diagonal & up
        score += bool(grows & last) - bool(shrinks & last)
        grows, shrinks = (grows << 1 | 1) & full, (shrinks << 1) & full
        up, down = (shrinks | ~(diagonal | grows)) & full, diagonal & grows
    return score


def _separability(pairs: Sequence[TextPair], vocabulary: Vocabulary | None) -> tuple[float, tuple[float, float]]:
    """The AUC over all texts, and its interval."""
    groups = [pair.group for pair in pairs]
    sides = ([pair.chosen for pair in pairs], [pair.rejected for pair in pairs])
    features = ngrams([masked(text, vocabulary) for side in sides for text in side])
    scores = decisions(features, folds(groups))
    ranked = _Ranked.of(scores[: len(pairs)], scores[len(pairs) :])
    names, place = np.unique(groups, return_inverse=True)
    chance = np.random.default_rng(0)
    even = np.full(len(names), 1 / len(names))
    drawn = [ranked.auc(chance.multinomial(len(names), even)[place]) for _ in range(_RESAMPLES)]
    low, high = np.quantile(drawn, (0.025, 0.975)).tolist()
    return _short(ranked.auc()), (_short(low), _short(high))


def _regression() -> Any:
    from sklearn.linear_model import LogisticRegression

    # liblinear runs in one thread: its sums do not depend on the machine's number of cores.
    return LogisticRegression(solver="liblinear", random_state=0)


@dataclass(frozen=True)
class _Ranked:
    """The rank of each chosen and each rejected value among the ``different`` values of both."""

    chosen: Ints
    rejected: Ints
    different: int

    @classmethod
    def of(cls, chosen: Floats, rejected: Floats) -> _Ranked:
        values, rank = np.unique(np.concatenate([chosen, rejected]), return_inverse=True)
        return cls(rank[: len(chosen)], rank[len(chosen) :], len(values))

    def auc(self, weights: Any = None) -> float:
        above, below = (np.bincount(rank, weights, self.different) for rank in (self.chosen, self.rejected))
        return float((above * (np.cumsum(below) - below / 2)).sum() / (above.sum() * below.sum()))


def _mean(values: Floats) -> float | None:
    return _short(float(values.mean())) if len(values) else None


def _quartiles(values: Floats) -> tuple[float, float, float] | None:
    if not len(values):
        return None
    low, middle, high = np.quantile(values, (0.25, 0.5, 0.75)).tolist()
    return _short(low), _short(middle), _short(high)


def _positive(values: Floats) -> float | None:
    """Of the values that are not 0, the share above it."""
    unequal = int((values != 0).sum())
    return _short(int((values > 0).sum()) / unequal) if unequal else None


def _short(value: float) -> float:
    return round(value, 4) + 0.0  # no minus zero
