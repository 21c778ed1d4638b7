"""Does a model prefer the right answer because of the image, and what training does to likelihood and length.

Pure functions of log-probs that were stored per pair. They show what CHAIR and POPE cannot: a model that learned the
preference from the text alone prefers as well without the image (mDPO, Wang et al. 2024, "unconditional preference").
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from training.evaluation.ratio import Term
from training.evaluation.tally import Tally

#: The condition that all others are compared with.
TRUE = "true"


@dataclass(frozen=True, slots=True)
class PairLogps:
    """Log-probs of both answers of a pair, summed over their tokens, under one model and one condition.

    ``image`` is the image that belongs to the pair, also where another one or none was shown.

    Raises:
        ValueError: a log-prob is not finite, or an answer has no token.
    """

    id: str
    image: str
    chosen: float
    rejected: float
    chosen_tokens: int
    rejected_tokens: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.chosen) and math.isfinite(self.rejected)):
            raise ValueError(f"pair {self.id!r}: a log-prob is not finite; compute it again")
        if min(self.chosen_tokens, self.rejected_tokens) < 1:
            raise ValueError(f"pair {self.id!r}: an answer without a token has no log-prob; leave the pair out")


def drift(before: Sequence[PairLogps], after: Sequence[PairLogps]) -> Tally:
    """What training did to the likelihood of pairs, in nats; ``after`` is the same pairs under the trained model.

    =======================  =======================================================================================
    chosen, rejected         mean of log p after - log p before
    margin                   mean of the chosen answer's change - the rejected one's
    chosen_per_token         all changes of chosen answers / all their tokens; also ``rejected_per_token``
    chosen_fell              share of pairs whose chosen answer became less likely
    rejected_fell            the same of the rejected one
    =======================  =======================================================================================

    Raises:
        ValueError: the two do not hold the same pairs.
    """
    return Tally.of((old.image, _drift_terms(old, new)) for old, new in _match(before, after, "after"))


def conditional(
    policy: Mapping[str, Sequence[PairLogps]], reference: Mapping[str, Sequence[PairLogps]] | None = None
) -> Tally:
    """Preference with the true image, and with each other condition ("swapped", "none", "corrupted" ...).

    =======================  =======================================================================================
    accuracy_CONDITION       share of pairs whose chosen answer is preferred; a tie counts half
    accuracy_gap_CONDITION   pair by pair: preferred with the true image - preferred with the other; near 0 if the
                             preference does not depend on the image
    chosen_gap_CONDITION     mean of log p(chosen | true image) - log p(chosen | other), in nats
    chosen_gap_per_token_C.  all these gaps / all tokens of chosen answers
    prefers_image_CONDITION  share of pairs whose chosen answer is likelier with the true image; a tie counts half
    =======================  =======================================================================================

    With a ``reference`` under the same conditions, an answer is preferred by its implicit reward
    (log p_policy - log p_reference), else by its log-prob alone. The other metrics are the policy's own.

    Raises:
        ValueError: no condition "true", or conditions or pairs differ.
    """
    if TRUE not in policy:
        raise ValueError(f"condition {TRUE!r} is missing; have {', '.join(sorted(policy))}")
    if reference is not None and reference.keys() != policy.keys():
        odd = min(reference.keys() ^ policy.keys())
        raise ValueError(f"condition {odd!r} is not there for both policy and reference; score it with both")
    rows: list[tuple[str, Mapping[str, Term]]] = []
    with_true = _preferences(TRUE, policy, reference)
    for condition in policy:
        preferences = _preferences(condition, policy, reference)
        for shown, other in _match(policy[TRUE], policy[condition], condition):
            preferred = preferences[shown.id]
            terms: dict[str, Term] = {f"accuracy_{condition}": (preferred, 1)}
            if condition != TRUE:
                gap = shown.chosen - other.chosen
                terms |= {
                    f"accuracy_gap_{condition}": (with_true[shown.id] - preferred, 1),
                    f"chosen_gap_{condition}": (gap, 1),
                    f"chosen_gap_per_token_{condition}": (gap, shown.chosen_tokens),
                    f"prefers_image_{condition}": (_above(gap), 1),
                }
            rows.append((shown.image, terms))
    return Tally.of(rows)


def lengths(texts: Iterable[tuple[str, str, str]]) -> Tally:
    """How the length of answers changed: (image, text before, text after), in words split at white space.

    ``before`` and ``after`` are mean lengths, ``change`` the mean of after - before, ``ratio`` all words after / all
    words before, ``shorter`` the share of answers that became shorter.
    """
    counted = ((image, len(before.split()), len(after.split())) for image, before, after in texts)
    return Tally.of(
        (
            image,
            {
                "before": (old, 1),
                "after": (new, 1),
                "change": (new - old, 1),
                "ratio": (new, old),
                "shorter": (float(new < old), 1),
            },
        )
        for image, old, new in counted
    )


def _drift_terms(old: PairLogps, new: PairLogps) -> dict[str, Term]:
    chosen, rejected = new.chosen - old.chosen, new.rejected - old.rejected
    return {
        "chosen": (chosen, 1),
        "rejected": (rejected, 1),
        "margin": (chosen - rejected, 1),
        "chosen_per_token": (chosen, old.chosen_tokens),
        "rejected_per_token": (rejected, old.rejected_tokens),
        "chosen_fell": (float(chosen < 0), 1),
        "rejected_fell": (float(rejected < 0), 1),
    }


def _preferences(
    condition: str,
    policy: Mapping[str, Sequence[PairLogps]],
    reference: Mapping[str, Sequence[PairLogps]] | None,
) -> dict[str, float]:
    if reference is None:
        return {pair.id: _above(pair.chosen - pair.rejected) for pair in policy[condition]}
    return {
        pair.id: _above((pair.chosen - ref.chosen) - (pair.rejected - ref.rejected))
        for pair, ref in _match(policy[condition], reference[condition], f"the reference, {condition}")
    }


def _above(value: float) -> float:
    return 1.0 if value > 0 else 0.5 if value == 0 else 0.0


def _match(first: Sequence[PairLogps], second: Sequence[PairLogps], name: str) -> list[tuple[PairLogps, PairLogps]]:
    of_first, of_second = {pair.id: pair for pair in first}, {pair.id: pair for pair in second}
    odd = sorted(of_first.keys() ^ of_second.keys())
    if odd or len(of_first) < len(first) or len(of_second) < len(second):
        what = f"pair {odd[0]!r} is not in both" if odd else "a pair is there twice"
        raise ValueError(f"{what} ({name}); score the same pairs, each once")
    pairs = [(pair, of_second[id]) for id, pair in of_first.items()]
    for pair, other in pairs:
        if (pair.chosen_tokens, pair.rejected_tokens) != (other.chosen_tokens, other.rejected_tokens):
            raise ValueError(f"pair {pair.id!r} ({name}): its answers have other numbers of tokens; use one tokenizer")
    return pairs
