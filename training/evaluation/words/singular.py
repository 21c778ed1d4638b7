"""The singular of an English noun, with the faults of the rules that CHAIR was published with.

CHAIR's own script and the standalone one call ``pattern.en.singularize``, which is no longer maintained. Its rules go
by the ending alone, so they also cut words that are singular already: "bus" becomes "bu" and is never found, "tennis
racket" is found only because "racket" is listed too, "ties" becomes "ty" and "canoes" "cano". A score that shall equal
the published one must do the same. This function agrees with pattern 3.6 on the names and synonyms of CHAIR's list and
their plurals, and on most other nouns of things; not on Greek and Latin plurals.
"""

from __future__ import annotations

import re


def _split(text: str) -> list[str]:
    return text.split()


#: A word that one of these ends with stays as it is. That it is "ends with" lets "ears" (shears) stay as well.
_UNCHANGED = _split(
    "breeches britches chassis christmas clippers contretemps corps debris diabetes gallows happiness headquarters "
    "herpes innings jackanapes mathematics measles mews mumps news pincers pliers proceedings progress rabies rice "
    "scissors series shears species swiss"
)
#: Plurals in -ies whose singular ends in -ie. The rules notice them, and then return the plural.
_KEPT_IES = _split(
    "aunties beanies birdies collies cookies cuties doggies freebies groupies hankies hippies hoagies hotties junkies "
    "laddies lingeries meanies newbies nighties oldies pixies rookies softies sweeties techies toughies veggies "
    "yuppies zombies"
)
#: In this order; the first that the word ends with is replaced.
_IRREGULAR = {
    "axes": "axe", "children": "child", "feet": "foot", "geese": "goose", "leaves": "leaf", "loaves": "loaf",
    "men": "man", "mongooses": "mongoose", "moves": "move", "oxen": "ox", "people": "person", "teeth": "tooth",
}  # fmt: skip
#: (pattern, replacement) in order; the first that is found applies, and no other.
_ENDINGS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"(?<=shoe)s$", ""),
        (r"(?<=o)es$|(?<=bus)es$", ""),
        (r"(?<=[ml])ice$", "ouse"),
        (r"(?<=x)es$|(?<=[cs]h)es$|(?<=ss)es$", ""),
        (r"(?<=m)ovies$", "ovie"),
        (r"(?<=[^aeiouy])ies$|(?<=qu)ies$", "y"),
        (r"(?<=[aeo]l)ves$|(?<=[^d]ea)ves$|(?<=ar)ves$", "f"),
        (r"(?<=er)ves$", "ve"),
        (r"(?<=[nlw]i)ves$", "fe"),
        (r"(?<=[lr])ves$", "f"),
        (r"(?<=[aeo])ves$|(?<=si)ves$|(?<=ti)ves$|(?<=hi)ves$", "ve"),
        (r"(?<=[^f])ves$", "fe"),
        (r"(?<=[hdronbp])oses$|(?<=cl)oses$", "ose"),
        (r"(?<=.)oses$", "osis"),
        (r"(?<=ba)ses$", "sis"),
        (r"(?<=[ti])a$", "um"),
        (r"s$", ""),
    )
]


def singular(word: str) -> str:
    """
    >>> [singular(word) for word in ("knives", "people", "glasses", "glass", "bus", "ties", "scissors")]
    ['knife', 'person', 'glass', 'glas', 'bu', 'ty', 'scissors']
    """
    if any(ending.endswith(word) for ending in _UNCHANGED) or any(word.endswith(ending) for ending in _KEPT_IES):
        return word
    for plural, replaced in _IRREGULAR.items():
        if word.endswith(plural):
            return word.removesuffix(plural) + replaced
    for pattern, replacement in _ENDINGS:
        if pattern.search(word):
            return pattern.sub(replacement, word)
    return word
