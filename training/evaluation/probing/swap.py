"""Which pair lends its images to which. Pure; the order of the pairs does not matter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from training.errors import DataError

#: Content hashes of a pair's images, in order.
Pictures = tuple[str, ...]


def partners(ids: Sequence[str], pictures: Sequence[Pictures]) -> list[int]:
    """For each pair the index of the one whose images are shown in place of its own.

    A partner has as many images, and none of them is among the pair's own: several pairs may be about one picture. If
    no picture belongs to more than half of the pairs, and all have one, every pair is the partner of one other.

    >>> partners(["a", "b", "c"], [("sun",), ("boat",), ("horse",)])
    [1, 2, 0]

    Raises:
        DataError: there is no other picture for a pair.
    """
    first: dict[Pictures, str] = {}
    for id, images in sorted(zip(ids, pictures, strict=True)):
        first.setdefault(images, id)
    # Those of one picture stand together; so far ahead, none of them is left.
    order = sorted(range(len(ids)), key=lambda index: (first[pictures[index]], ids[index]))
    ahead = max(Counter(pictures).values())
    partner_of = [0] * len(ids)
    for place, index in enumerate(order):
        others = (order[(place + ahead + step) % len(order)] for step in range(len(order)))
        partner = next((other for other in others if _strange(pictures[index], pictures[other])), None)
        if partner is None:
            raise DataError(
                f"pair {ids[index]}: no other pair has {len(pictures[index])} other image(s) to be swapped in; probe "
                "more pairs, or leave out the condition swapped"
            )
        partner_of[index] = partner
    return partner_of


def _strange(images: Pictures, other: Pictures) -> bool:
    return len(images) == len(other) and not set(images) & set(other)
