"""Is one model better than another: both answered the same questions, so each image is its own control."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from training.evaluation.ratio import interval, ratios, weights
from training.evaluation.tally import Floats, Tally

#: Numbers held at once by a block of samples, whatever the number of images.
_BLOCK = 2_000_000
#: Standard errors from the middle to either end of an interval of 95 %.
NORMAL = 1.96
#: Sums of the same terms in another order differ by this much, and must still count as equal.
_EQUAL = 1e-9


@dataclass(frozen=True, slots=True)
class MetricDifference:
    """``difference`` is b - a, ``interval`` its confidence interval; None where a metric is undefined, the interval
    also where fewer than two images count in it for one of the models.

    ``p_value`` is two-sided: how often a difference at least as large comes about if, image by image, it is left to
    chance which model gave which answers. It is at least 1 / (samples + 1).
    """

    a: float | None
    b: float | None
    difference: float | None
    interval: list[float] | None
    p_value: float | None


def compare(
    a: Tally, b: Tally, samples: int = 10_000, seed: int = 0, level: float = 0.95
) -> dict[str, MetricDifference]:
    """Every metric of two models over the same images.

    The interval is a paired percentile bootstrap: a sample holds the same images for both. The p-value is a paired
    permutation test (Noreen 1989, "approximate randomization"), which for pooled ratios needs no assumption about
    their distribution. Neither is corrected for the number of metrics that are looked at.

    Raises:
        ValueError: the two differ in their images, in which answers failed, or in their metrics.
    """
    _same(
        "image",
        a.images,
        b.images,
        "compare models that answered the same questions; if answers about it failed, evaluate that model again, which "
        "asks for them anew",
    )
    _same_failed(a, b)
    _same("metric", a.names, b.names, "compare results of the same suite and version")
    first, second = a.values(), b.values()
    observed = {name: _minus(second[name], first[name]) for name in a.names}
    gaps: dict[str, list[Floats]] = {name: [] for name in a.names}
    varied = a.varied & b.varied
    as_large, defined = dict.fromkeys(a.names, 0), dict.fromkeys(a.names, 0)
    for number, size in enumerate(_blocks(samples, len(a.images))):
        drawn = weights(len(a.images), size, (seed, 0, number))
        of_a, of_b = a.sampled(drawn), b.sampled(drawn)
        for name, swapped in _permute(a, b, np.random.default_rng((seed, 1, number)), size).items():
            gaps[name].append(of_b[name] - of_a[name])
            differences = swapped[~np.isnan(swapped)]
            defined[name] += differences.size
            seen = observed[name]
            as_large[name] += 0 if seen is None else int(np.sum(np.abs(differences) >= abs(seen) - _EQUAL))
    return {
        name: MetricDifference(
            first[name],
            second[name],
            observed[name],
            interval(np.concatenate(gaps[name]), level) if name in varied and gaps[name] else None,
            (as_large[name] + 1) / (defined[name] + 1) if observed[name] is not None and a.images else None,
        )
        for name in a.names
    }


def unpaired(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, MetricDifference]:
    """Metrics of two ``results.json`` of which only value and standard error are known, of both models: the interval
    is that of two independent samples, wider than a paired one, and there is no p-value.

    >>> unpaired({"f1": {"value": 0.5, "stderr": 0.03}}, {"f1": {"value": 0.6, "stderr": 0.04}})["f1"].interval
    [0.002, 0.198]
    """
    differences = {}
    for name in (name for name in a if name in b and "stderr" in a[name] and "stderr" in b[name]):
        (first, of_a), (second, of_b) = ((metric[name]["value"], metric[name]["stderr"]) for metric in (a, b))
        half = None if of_a is None or of_b is None else NORMAL * math.hypot(of_a, of_b)
        gap = second - first
        ends = None if half is None else [round(gap - half, 12), round(gap + half, 12)]
        differences[name] = MetricDifference(first, second, gap, ends, None)
    return differences


def _permute(a: Tally, b: Tally, rng: np.random.Generator, size: int) -> dict[str, Floats]:
    """The difference of every metric, [size], after the models of each image were swapped or not."""
    swap = rng.integers(0, 2, (size, len(a.images))).astype(float)
    of_a: dict[str, Floats] = {}
    of_b: dict[str, Floats] = {}
    for name in a.sums:
        moved = swap @ (b.sums[name] - a.sums[name])
        of_a[name] = ratios(a.sums[name].sum(axis=0) + moved)
        of_b[name] = ratios(b.sums[name].sum(axis=0) - moved)
    of_a |= {name: linear.sampled(of_a) for name, linear in a.linear.items()}
    of_b |= {name: linear.sampled(of_b) for name, linear in b.linear.items()}
    return {name: of_b[name] - of_a[name] for name in a.names}


def _blocks(samples: int, images: int) -> Iterator[int]:
    size = max(1, _BLOCK // max(images, 1))
    done = 0
    while images and done < samples:
        yield min(size, samples - done)
        done += size


def _minus(b: float | None, a: float | None) -> float | None:
    return None if a is None or b is None else b - a


def _same(what: str, a: tuple[str, ...], b: tuple[str, ...], remedy: str) -> None:
    odd = sorted(set(a) ^ set(b))
    if odd:
        which = "second" if odd[0] in a else "first"
        raise ValueError(f"{what} {odd[0]!r} is missing from the {which} of the two ({len(odd)} differ); {remedy}")


def _same_failed(a: Tally, b: Tally) -> None:
    """Where one of two answers about an image failed, the other one alone would stand against both.

    Raises:
        ValueError: other answers failed, or another number of them where that is all that is known.
    """
    remedy = "evaluate that model again, which asks for failed answers anew"
    if a.failed is not None and b.failed is not None:
        # What failed in the one is what is missing from it.
        _same("the answer to question", b.failed, a.failed, remedy)
        return
    for name in a.counts:
        if (name == "failed" or name.endswith("_failed")) and a.counts[name] != b.counts.get(name):
            raise ValueError(f"{name}: {a.counts[name]} and {b.counts.get(name)} answers; {remedy}")


def as_json(differences: Mapping[str, MetricDifference]) -> dict[str, dict[str, object]]:
    """
    >>> as_json({"f1": MetricDifference(0.5, 0.75, 0.25, [0.1, 0.4], 0.01)})["f1"]["p_value"]
    0.01
    """
    return {name: asdict(difference) for name, difference in differences.items()}
