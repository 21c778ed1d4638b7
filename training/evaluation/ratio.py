"""Every metric here is a ratio of two sums, so one function gives its value and one its confidence interval."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

#: What one answer adds to a metric's numerator and denominator.
Term = tuple[float, float]


def pool(terms: Iterable[Term]) -> float | None:
    """Sum of numerators / sum of denominators; None where there is nothing to divide by.

    >>> pool([(1, 2), (0, 2)]), pool([])
    (0.25, None)
    """
    numerator = denominator = 0.0
    for above, below in terms:
        numerator, denominator = numerator + above, denominator + below
    return float(numerator / denominator) if denominator else None


def weights(images: int, samples: int = 1000, seed: int | tuple[int, ...] = 0) -> NDArray[np.float64]:
    """How often each bootstrap sample holds each image: [samples, images], each row sums to ``images``.

    Images are drawn, not answers: the answers about one image are not independent of each other.
    """
    drawn = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=samples)
    return drawn.astype(np.float64)


def resample(terms: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """The ratio in each bootstrap sample: [images, 2] and [samples, images] -> [samples]; nan for 0 / 0."""
    return ratios(weights @ terms)


def ratios(sums: NDArray[np.float64]) -> NDArray[np.float64]:
    """Numerator / denominator: [samples, 2] -> [samples]; nan for 0 / 0."""
    values = np.full(len(sums), np.nan)
    np.divide(sums[:, 0], sums[:, 1], out=values, where=sums[:, 1] != 0)
    return values


def interval(samples: NDArray[np.float64], level: float = 0.95) -> list[float] | None:
    """The percentile interval ``[low, high]`` of the samples that are defined; None if there is none.

    >>> interval(np.array([0.0, 0.5, 1.0, np.nan]), level=1.0)
    [0.0, 1.0]
    """
    defined = samples[~np.isnan(samples)]
    if not defined.size:
        return None
    low, high = np.quantile(defined, [(1 - level) / 2, (1 + level) / 2])
    return [float(low), float(high)]
