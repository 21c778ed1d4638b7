"""CHAIR (Rohrbach et al. 2018) with recall and length, without which it rewards saying nothing.

============  ======================================================================================================
chair_i       hallucinated mentions / all mentions, pooled over captions, repeats counted
chair_s       captions with at least one hallucinated mention / all captions
cover         true objects named / true objects, pooled over captions: "Cover" as AMBER's code computes it
cover_per_image   the same ratio per caption, then averaged: "Cover" as AMBER's paper defines it
mean_length   words (split at white space) per caption
============  ======================================================================================================

A ratio without a denominator is None: a model that names no object has no chair_i, rather than a perfect one.
"""

from __future__ import annotations

from collections.abc import Iterable

from reward.scorers.objects import ObjectVerdict
from training.evaluation.ratio import Term, pooled

METRICS = ("chair_i", "chair_s", "cover", "cover_per_image", "mean_length")


def terms(verdict: ObjectVerdict, words: int) -> dict[str, Term]:
    """What one caption adds to each metric."""
    return {
        "chair_i": (len(verdict.hallucinated), len(verdict.mentions)),
        "chair_s": (float(bool(verdict.hallucinated)), 1),
        "cover": (len(verdict.covered), len(verdict.truth)),
        "cover_per_image": (verdict.recall or 0.0, float(bool(verdict.truth))),
        "mean_length": (words, 1),
    }


def measure(captions: Iterable[tuple[ObjectVerdict, int]]) -> dict[str, float | None]:
    """The metrics of captions given as (verdict, words).

    >>> from reward.scorers.objects import judge
    >>> from reward.text.vocabulary import Vocabulary
    >>> vocabulary = Vocabulary("demo", "1", {"sun": "sun", "boat": "boat"})
    >>> verdict = judge("A sun and a boat.", frozenset({"sun"}), vocabulary)
    >>> measure([(verdict, 5)])["chair_i"], measure([])["chair_i"]
    (0.5, None)
    """
    rows = [terms(verdict, words) for verdict, words in captions]
    return {name: pooled(row[name] for row in rows) for name in METRICS}
