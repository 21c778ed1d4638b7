"""Which two answers to a prompt become a pair. Pure functions of the texts of one prompt.

A policy proposes pairs and says which come first; what every pair must fulfil is the same for all of them (``choose``).
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from pipeline.pairing.config import BY_ORIGIN, Pair
from pipeline.pairing.rounding import reaches, spread
from pipeline.rewriting import verify
from reward.text.types import Lineage

#: Why a prompt has no pair, and what that means. Every prompt without one has exactly one of these.
REASONS: Mapping[str, str] = {
    "failed": "a stage before this one failed",
    "no_valid_candidate": "fewer than two texts pass the gates and have every score that applies",
    "identical": "the texts that could meet are the same answer",
    "vetoed": "no text may be chosen, or none rejected, or both only the same one",
    "tie": "the best text is worth no more than the worst, or an answer is better than another in one spelling and "
    "worse in the next",
    "no_partner": "there is no text of the origin that the policy pairs",
    "below_margin": "no two texts that could meet are pair.margin apart",
    "length_gap": "the texts that could meet differ in length by more than pair.max_length_ratio",
    "length_balance": "left out, so that the longer text wins in half of the pairs",
}


class Able(NamedTuple):
    """A text that may be a side of a pair.

    ``place`` is its number among the candidates, ``total`` what it is worth, None where nothing is weighed; ``normal``
    equals that of every text that is the same answer (``reward.text.same_text``); ``words`` is how many the text has.
    """

    place: int
    total: float | None
    text: str
    normal: Hashable
    words: int
    may_be_chosen: bool
    may_be_rejected: bool
    origin: str | None
    parent: int | None
    model: str | None


Two = tuple[Able, Able]


class Draw(NamedTuple):
    """Chance, as a function of the run's seed and the prompt."""

    seed: int
    id: str

    def of(self, text: str) -> bytes:
        return hashlib.blake2b(f"{self.seed}:{self.id}:{text}".encode("utf-8", "replace"), digest_size=8).digest()


@dataclass(frozen=True)
class Policy:
    """``propose`` gives the pairs that the policy is about; ``first`` is the key by which they are put in order;
    ``most`` how many a prompt gives where the recipe does not say (None: all)."""

    propose: Callable[[Sequence[Able], Pair], Iterable[Two]]
    first: Callable[[Two, Draw], Any]
    most: int | None = None


def choose(able: Sequence[Able], policy: Pair, draw: Draw) -> list[Two] | str:
    """The pairs (chosen, rejected) of a prompt, or one of ``REASONS``.

    For every pair, whatever a policy proposes: the two may stand where they stand; their texts are different answers;
    the chosen one's total is at least ``margin`` above the other's, unless nothing is weighed, and no other spellings
    of the two answers are that far apart the other way round; their lengths differ at most by the factor
    ``max_length_ratio``. No two pairs have the same two texts, either way round.
    """
    if len(able) < 2:
        return "no_valid_candidate"
    if len({candidate.normal for candidate in able}) == 1:
        return "identical"
    chosen, rejected = heads(able), tails(able)
    if not chosen or not rejected or len({candidate.normal for candidate in (*chosen, *rejected)}) == 1:
        return "vetoed"
    weighed = chosen[0].total is not None
    if weighed and _high(chosen) == _low(rejected):
        return "tie"
    rule = _rule(policy)
    pairs = list(rule.propose(able if policy.policy in BY_ORIGIN else _once(able), policy))
    if not pairs:
        return "no_partner"
    pairs = [two for two in pairs if two[0].may_be_chosen and two[1].may_be_rejected]
    if not pairs:
        return "vetoed"
    if weighed:
        pairs = [two for two in pairs if _wins(*two, policy.margin)]
        if not pairs:
            return "below_margin"
    pairs = [two for two in pairs if two[0].normal != two[1].normal]
    if not pairs:
        return "identical"
    if weighed:
        reach = _reach(chosen, rejected)
        pairs = [two for two in pairs if not _contradicted(two, reach, policy.margin)]
        if not pairs:
            return "tie"
    pairs = [two for two in pairs if _alike(*two, policy.max_length_ratio)]
    if not pairs:
        return "length_gap"
    most = policy.max_pairs or rule.most
    if most == 1:
        return [min(pairs, key=lambda two: rule.first(two, draw))]
    return list(itertools.islice(_different_pairs(sorted(pairs, key=lambda two: rule.first(two, draw))), most))


def _rule(policy: Pair) -> Policy:
    plug_in = policy.plug_in()
    if plug_in is None:
        return POLICIES[policy.policy]
    return Policy(lambda able, _: plug_in.propose(able), _width_key, getattr(plug_in, "most", None))


def standardise(values: Sequence[float]) -> list[float]:
    """Minus their mean, divided by their standard deviation (of the whole, not of a sample); zeros if all are equal
    but for rounding.

    The order of the values does not matter.

    >>> standardise([1.0, 3.0]), standardise([0.1 + 0.2, 0.3, 0.3])
    ([-1.0, 1.0], [0.0, 0.0, 0.0])
    """
    span = spread(values)
    if not span or not math.isfinite(span):
        return [0.0] * len(values)
    mean = math.fsum(value / len(values) for value in values)
    shares = [(value - mean) / span for value in values]  # between -1 and 1, so that no square is lost
    deviation = math.sqrt(math.fsum(share * share for share in shares) / len(values))
    return [share / deviation for share in shares]


def heads(able: Sequence[Able]) -> list[Able]:
    return [candidate for candidate in able if candidate.may_be_chosen]


def tails(able: Sequence[Able]) -> list[Able]:
    return [candidate for candidate in able if candidate.may_be_rejected]


def _ends(able: Sequence[Able], policy: Pair) -> Iterator[Two]:
    """The best ones and the worst ones."""
    chosen, rejected = heads(able), tails(able)
    high, low = _high(chosen), _low(rejected)
    worst = [candidate for candidate in rejected if candidate.total == low]
    return ((best, loser) for best in chosen if best.total == high for loser in worst)


def _all(able: Sequence[Able], policy: Pair) -> Iterator[Two]:
    losers = tails(able)
    return ((best, other) for best in heads(able) for other in losers if _worth(best) > _worth(other))


def _best_and_any(able: Sequence[Able], policy: Pair) -> Iterator[Two]:
    chosen = heads(able)
    high = _high(chosen)
    return itertools.product([candidate for candidate in chosen if candidate.total == high], tails(able))


def _top_k(able: Sequence[Able], policy: Pair) -> Iterator[Two]:
    """Of several texts that are the same answer the better one counts among the best, the worse among the worst."""
    best = _apart(
        sorted(heads(able), key=lambda candidate: (-_worth(candidate), candidate.text, candidate.place)), policy.k
    )
    worst = _apart(
        sorted(tails(able), key=lambda candidate: (_worth(candidate), candidate.text, candidate.place)), policy.k
    )
    return itertools.product(best, worst)


def _noised_pairs(able: Sequence[Able], policy: Pair) -> Iterator[Two]:
    """An answer to the image against the same model's answer to the noised image: its parent, where it names one."""
    for rejected in tails(able):
        if rejected.origin == "noised":
            for chosen in heads(able):
                same_writer = (
                    chosen.model == rejected.model if rejected.parent is None else chosen.place == rejected.parent
                )
                if chosen.origin == "sampled" and same_writer:
                    yield chosen, rejected


def _continued_pairs(able: Sequence[Able], policy: Pair) -> Iterator[Two]:
    """An answer against what became of its beginning without the image."""
    sampled = {candidate.place: candidate for candidate in heads(able) if candidate.origin == "sampled"}
    for rejected in tails(able):
        if rejected.origin == "continued" and rejected.parent in sampled:
            yield sampled[rejected.parent], rejected


def _rewritten_pairs(able: Sequence[Able], policy: Pair) -> Iterator[Two]:
    """A text against one that was made from it, or both from a third, such that one should be the better one."""
    at = {candidate.place: index for index, candidate in enumerate(able)}
    parents = [at.get(candidate.parent, -1) if candidate.parent is not None else -1 for candidate in able]
    # A text whose parent is out of the question is related to those that were made from it alone.
    lineages = [
        Lineage(candidate.origin or "", parent) if parent >= 0 else Lineage("")
        for candidate, parent in zip(able, parents, strict=True)
    ]
    for better, worse in verify.pairs(lineages):
        if able[better].may_be_chosen and able[worse].may_be_rejected:
            yield able[better], able[worse]


def _closeness_key(two: Two, draw: Draw) -> Any:
    """The smallest difference in length, then the texts themselves; of equal texts those that are worth most and
    least."""
    chosen, rejected = two
    apart = abs(chosen.words - rejected.words)
    return apart, chosen.text, rejected.text, -_worth(chosen), _worth(rejected), chosen.place, rejected.place


def _width_key(two: Two, draw: Draw) -> Any:
    """The largest margin."""
    return _worth(two[1]) - _worth(two[0]), _closeness_key(two, draw)


def _draw_key(two: Two, draw: Draw) -> Any:
    return draw.of(two[1].text), _closeness_key(two, draw)


#: Wang et al. 2024, "Enhancing the Reasoning Ability of Multimodal Large Language Models via Mixed Preference
#: Optimization" (arXiv 2411.10442) for ``correctness`` and ``continuation``; Zhu et al. 2024, "Self-Supervised Visual
#: Preference Alignment" (arXiv 2404.10501) for ``corrupted_image``; Zhao et al. 2023 (HA-DPO, arXiv 2311.16839) and
#: Zhou et al. 2024 (POVID, arXiv 2402.11411) for ``rewritten``.
POLICIES: dict[str, Policy] = {
    "best_vs_worst": Policy(_ends, _closeness_key, most=1),
    "all_above_margin": Policy(_all, _width_key),
    "best_vs_random": Policy(_best_and_any, _draw_key, most=1),
    "top_k": Policy(_top_k, _width_key),
    "correctness": Policy(_ends, _closeness_key),
    "corrupted_image": Policy(_noised_pairs, _width_key, most=1),
    "continuation": Policy(_continued_pairs, _width_key),
    "rewritten": Policy(_rewritten_pairs, _width_key),
}


def _worth(candidate: Able) -> float:
    return candidate.total or 0.0


def _wins(chosen: Able, rejected: Able, margin: float) -> bool:
    return reaches(_worth(chosen), _worth(rejected), margin)


class Reach(NamedTuple):
    """Of all spellings of an answer: what the best that may be chosen is worth, and the worst that may be rejected."""

    best: float = -math.inf
    worst: float = math.inf


def _reach(chosen: Iterable[Able], rejected: Iterable[Able]) -> Mapping[Hashable, Reach]:
    reach: dict[Hashable, Reach] = {}
    for text in chosen:
        of = reach.get(text.normal, Reach())
        reach[text.normal] = of._replace(best=max(of.best, _worth(text)))
    for text in rejected:
        of = reach.get(text.normal, Reach())
        reach[text.normal] = of._replace(worst=min(of.worst, _worth(text)))
    return reach


def _contradicted(two: Two, reach: Mapping[Hashable, Reach], margin: float) -> bool:
    """Whether in other spellings the rejected answer wins over the chosen one: which of them is better is not known."""
    best, worst = reach[two[1].normal].best, reach[two[0].normal].worst
    return math.isfinite(best) and math.isfinite(worst) and reaches(best, worst, margin)


def _alike(chosen: Able, rejected: Able, ratio: float) -> bool:
    a, b = chosen.words, rejected.words
    return (a / b if a > b else b / a) <= ratio


def _once(able: Sequence[Able]) -> list[Able]:
    """Of texts that are the same answer and worth the same, the first by text: the others would only be in the way."""
    kept: dict[Any, Able] = {}
    for candidate in able:
        key = (candidate.normal, candidate.total, candidate.may_be_chosen, candidate.may_be_rejected)
        other = kept.get(key)
        if other is None or (candidate.text, candidate.place) < (other.text, other.place):
            kept[key] = candidate
    return list(kept.values())


def _high(able: Iterable[Able]) -> float:
    return max(map(_worth, able))


def _low(able: Iterable[Able]) -> float:
    return min(map(_worth, able))


def _apart(able: Iterable[Able], most: int) -> list[Able]:
    """The first ones that are different answers."""
    kept: dict[Hashable, Able] = {}
    for candidate in able:
        kept.setdefault(candidate.normal, candidate)
    return list(itertools.islice(kept.values(), most))


def _different_pairs(pairs: Iterable[Two]) -> Iterator[Two]:
    seen: set[frozenset[Hashable]] = set()
    for chosen, rejected in pairs:
        texts = frozenset((chosen.normal, rejected.normal))
        if texts not in seen:
            seen.add(texts)
            yield chosen, rejected
