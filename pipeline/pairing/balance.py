"""Keep a dataset of pairs from teaching that longer is better (or shorter): leave pairs out until neither wins often.

Pure, and applied shard by shard: what is left out does not depend on the number of workers.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.pairing.config import Pair


def gap(chosen: str, rejected: str) -> int:
    """How many more words the chosen text has; what white space separates is a word."""
    return len(chosen.split()) - len(rejected.split())


def surplus(gaps: Sequence[int], policy: Pair) -> list[int]:
    """The places of the pairs to leave out, so that of those of different length the share in which the longer text
    wins lies within ``policy.longer_wins``, or the two kinds differ by one pair at most.

    Of the kind there is too much of, the largest gaps go first; of equal ones, those that stand first.

    >>> surplus([4, 1, 9, -2], Pair(weights={"a": 1}, balance_length=True))
    [2]
    """
    if not policy.balance_length:
        return []
    low, high = policy.longer_wins
    places = {won: [i for i, gap in enumerate(gaps) if gap * won > 0] for won in (1, -1)}
    longer, shorter = len(places[1]), len(places[-1])
    more = 1 if longer > shorter else -1
    left = 0
    while abs(longer - shorter) > 1 and not low <= longer / (longer + shorter) <= high:
        left += 1
        longer, shorter = (longer - 1, shorter) if more > 0 else (longer, shorter - 1)
    return sorted(sorted(places[more], key=lambda i: (-abs(gaps[i]), i))[:left])
