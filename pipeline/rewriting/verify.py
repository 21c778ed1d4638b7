"""Which rewritten texts make a pair: by lineage, and by whether the scores agree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from reward.text.types import Lineage

#: Which of the two is better, the candidate of this origin or its parent.
BETTER_THAN_PARENT: Mapping[str, bool] = {"corrected": True, "injected": False}
RESTYLED = "restyled"


def pairs(lineages: Sequence[Lineage]) -> list[tuple[int, int]]:
    """The pairs (better, worse) that exist by lineage, in order; candidates go by their numbers.

    A corrected text is better than its parent, an injected one worse, and so from step to step: a corrected text is
    better than what was injected into its parent. Of two that are restyled from such texts the same is so. A text
    that is restyled is never paired with one that is not: they would differ in style.

    >>> said, right, wrong = Lineage("sampled"), Lineage("corrected", 0), Lineage("injected", 0)
    >>> pairs([said, right, wrong, Lineage("restyled", 1), Lineage("restyled", 0)])
    [(0, 2), (1, 0), (1, 2), (3, 4)]

    Raises:
        ValueError: a parent is no candidate, or a text descends from itself.
    """
    roots = [_style_root(number, lineages) for number in range(len(lineages))]
    worse = {number: _worse(number, lineages) for number in {root for root, _ in roots}}
    for number in sorted(worse):
        if number in worse[number]:
            raise ValueError(f"candidate {number} descends from itself; correct its parent")
    return [
        (first, other)
        for first, (root, styled) in enumerate(roots)
        for other, (below, also) in enumerate(roots)
        if styled == also and below in worse[root]
    ]


def scores_agree(better: float | None, worse: float | None, margin: float = 0.0) -> bool:
    """Whether the scores say so too: by at least ``margin``, and more than nothing. Without both scores they do not.

    >>> cases = [(0.5, 0.2), (0.5, 0.5), (0.5, 0.2, 0.5), (None, 0.2)]
    >>> tuple(scores_agree(*case) for case in cases)
    (True, False, False, False)
    """
    return better is not None and worse is not None and better > worse and better >= worse + margin


def _style_root(number: int, lineages: Sequence[Lineage]) -> tuple[int, int]:
    """The text that was restyled, and how often."""
    times = 0
    while lineages[number].origin == RESTYLED:
        number, times = _parent(number, lineages), times + 1
        if times > len(lineages):
            raise ValueError(f"candidate {number} descends from itself; correct its parent")
    return number, times


def _worse(number: int, lineages: Sequence[Lineage]) -> set[int]:
    """All that are worse than this text, from step to step."""
    worse: set[int] = set()
    waiting = [number]
    while waiting:
        better = waiting.pop()
        below = {
            other
            for other, lineage in enumerate(lineages)
            if BETTER_THAN_PARENT.get(lineage.origin) is False and _parent(other, lineages) == better
        }
        if BETTER_THAN_PARENT.get(lineages[better].origin):
            below.add(_parent(better, lineages))
        waiting += below - worse
        worse |= below
    return worse


def _parent(number: int, lineages: Sequence[Lineage]) -> int:
    parent = lineages[number].parent
    if parent is None or not 0 <= parent < len(lineages):
        raise ValueError(f"candidate {number} is {lineages[number].origin} and its parent is {parent}: no candidate")
    return parent
