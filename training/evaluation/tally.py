"""Terms of many answers, summed by image: the values of all metrics, and how sure they are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from training.evaluation.ratio import Term, interval, pool, resample, weights

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Linear:
    """A metric made of others: (``constant`` + sum of factor * metric) / ``divisor``. Undefined if one of them is.

    >>> Linear({"chair": -1, "f1": 1}, constant=1, divisor=2).of({"chair": 0.1, "f1": 0.7})
    0.8
    """

    parts: Mapping[str, float]
    constant: float = 0.0
    divisor: float = 1.0

    def of(self, values: Mapping[str, float | None]) -> float | None:
        total = self.constant
        for name, factor in self.parts.items():
            value = values[name]
            if value is None:
                return None
            total += factor * value
        return total / self.divisor

    def sampled(self, samples: Mapping[str, Floats]) -> Floats:
        """The same of arrays [samples]; nan where a part is."""
        total = np.full_like(next(iter(samples.values())), self.constant)
        for name, factor in self.parts.items():
            total = total + factor * samples[name]
        return total / self.divisor


def mean_of(names: Sequence[str]) -> Linear:
    """The mean of metrics that weigh the same, such as the splits of POPE."""
    return Linear(dict.fromkeys(names, 1.0), divisor=len(names))


@dataclass(frozen=True)
class Tally:
    """``sums[metric]`` is [images, 2]: numerator and denominator of each image, in the order of ``images`` (sorted).

    ``linear`` are metrics made of those in ``sums``. ``counts`` are what was left out and why; they get no interval.
    ``failed`` are the ids of the questions without an answer, sorted; None where nobody has kept them.
    """

    images: tuple[str, ...]
    sums: Mapping[str, Floats]
    linear: Mapping[str, Linear] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    failed: tuple[str, ...] | None = None

    @classmethod
    def of(
        cls,
        rows: Iterable[tuple[str, Mapping[str, Term]]],
        names: Iterable[str] = (),
        linear: Mapping[str, Linear] | None = None,
        counts: Mapping[str, int] | None = None,
    ) -> Tally:
        """Sum up (image, terms of one answer about it), whatever their order.

        ``names`` are metrics that shall be there even if no answer adds to them: their value is None.
        """
        terms_of: dict[str, dict[str, list[Term]]] = {}
        for image, terms in rows:
            of_image = terms_of.setdefault(image, {})
            for name, term in terms.items():
                of_image.setdefault(name, []).append(term)
        images = tuple(sorted(terms_of))
        metrics = dict.fromkeys([*names, *(name for image in images for name in terms_of[image])])
        # Sorted before they are summed: floating-point sums depend on the order.
        sums = {
            name: np.array(
                [np.sum(sorted(terms_of[image].get(name, [])) or [(0.0, 0.0)], axis=0) for image in images], float
            )
            for name in metrics
        }
        return cls(images, {name: of.reshape(-1, 2) for name, of in sums.items()}, linear or {}, counts or {})

    def picked(self, names: Mapping[str, str]) -> Tally:
        """Only the metrics that ``names`` has, by the names that it gives them; one that is not there has no terms."""
        none = np.zeros((len(self.images), 2))
        return replace(self, sums={new: self.sums.get(old, none) for old, new in names.items()}, linear={})

    @classmethod
    def joined(cls, tallies: Sequence[Tally], linear: Mapping[str, Linear]) -> Tally:
        """The metrics of all of them over the images of any; a tally without an image has no terms of it."""
        images = tuple(sorted({image for tally in tallies for image in tally.images}))
        at = {image: place for place, image in enumerate(images)}
        sums: dict[str, Floats] = {}
        for tally in tallies:
            places = [at[image] for image in tally.images]
            for name, of in tally.sums.items():
                sums[name] = np.zeros((len(images), 2))
                sums[name][places] = of
        return cls(images, sums, linear)

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.sums, *self.linear)

    @property
    def varied(self) -> frozenset[str]:
        """The metrics that at least two images count in; one that is made of others, if each of these is such a metric.
        However one image is drawn, its value is the same: that is no certainty."""
        varied = {name for name, of in self.sums.items() if np.count_nonzero(of[:, 1]) > 1}
        return frozenset({*varied, *(name for name, of in self.linear.items() if varied.issuperset(of.parts))})

    def values(self) -> dict[str, float | None]:
        """Each metric pooled over all images; None where there is nothing to divide by."""
        values = {name: pool(map(tuple, of)) for name, of in self.sums.items()}
        return {**values, **{name: linear.of(values) for name, linear in self.linear.items()}}

    def sampled(self, drawn: Floats) -> dict[str, Floats]:
        """Each metric in each bootstrap sample: [samples, images] -> [samples]; nan where it is undefined."""
        samples = {name: resample(of, drawn) for name, of in self.sums.items()}
        return {**samples, **{name: linear.sampled(samples) for name, linear in self.linear.items()}}

    def intervals(self, samples: int = 1000, seed: int = 0, level: float = 0.95) -> dict[str, list[float] | None]:
        """Percentile bootstrap over images: ``[low, high]`` per metric, None where fewer than two count in it."""
        if not self.images:
            return dict.fromkeys(self.names)
        drawn, varied = weights(len(self.images), samples, seed), self.varied
        return {name: interval(of, level) if name in varied else None for name, of in self.sampled(drawn).items()}
