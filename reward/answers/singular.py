"""One form for a word and its plural, in English."""

from __future__ import annotations

from reward.text.lexicon import IRREGULAR

_SINGULARS = {**{many: one for one, many in IRREGULAR.items()}, "persons": "person"}


def singular(word: str) -> str:
    """One form for one and many, be it a word or not: what counts is that both have the same.

    >>> [singular(word) for word in ("dogs", "dog", "boxes", "box", "women", "parties", "party", "glass")]
    ['dog', 'dog', 'box', 'box', 'woman', 'party', 'party', 'glass']
    """
    if word in _SINGULARS:
        return _SINGULARS[word]
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("ches", "shes", "sses", "xes", "zes")):
        return word[:-2]
    return word[:-1] if len(word) > 2 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word
