"""Which objects a text names: a closed vocabulary, and where in the text each object is mentioned."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, slots=True)
class Mention:
    """``text[start:end] == surface`` names the object ``name``; offsets count characters."""

    start: int
    end: int
    surface: str
    name: str


@dataclass(frozen=True)
class Vocabulary:
    """A closed list of objects and every way a text may name them.

    Args:
        name: what the vocabulary covers, such as ``"scenes"``.
        version: changes whenever a synonym does; part of every score's version.
        synonyms: surface form -> canonical object. Plurals and terms of several words are surface forms like any
            other; nothing is singularised, so a form that is not listed is not a mention. A canonical name that is
            itself written in texts must be listed too.

    Raises:
        ValueError: a surface form is empty, or two forms that differ only in case or spacing name different objects.

    >>> vocabulary = Vocabulary("demo", "1", {"dog": "dog", "dogs": "dog", "hot dog": "food"})
    >>> [(m.start, m.surface, m.name) for m in vocabulary.mentions("A Hot dog and two dogs.")]
    [(2, 'Hot dog', 'food'), (18, 'dogs', 'dog')]
    """

    name: str
    version: str
    synonyms: Mapping[str, str]

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for surface, canonical in self.synonyms.items():
            key = _normal(surface)
            if not key:
                raise ValueError(f"vocabulary {self.name!r}: an empty surface form for {canonical!r}; remove it")
            if seen.setdefault(key, canonical) != canonical:
                raise ValueError(
                    f"vocabulary {self.name!r}: {surface!r} names both {seen[key]!r} and {canonical!r}; keep one"
                )

    @cached_property
    def objects(self) -> frozenset[str]:
        """The canonical names."""
        return frozenset(self.synonyms.values())

    def canonical(self, name: str) -> str | None:
        """The object that ``name`` stands for, or None if the vocabulary does not know it.

        >>> Vocabulary("demo", "1", {"dogs": "dog"}).canonical("Dogs")
        'dog'
        """
        return name if name in self.objects else self._canonical.get(_normal(name))

    def mentions(self, text: str) -> list[Mention]:
        """Every mention in order of appearance, without overlaps: leftmost first, then the longest form.

        Whole words only, whatever their case; the words of one term may stand apart by any white space.
        """
        if not self._forms:
            return []
        return [
            Mention(match.start(), match.end(), match.group(), self._forms[match.lastindex - 1][1])
            for match in self._pattern.finditer(text)
            if match.lastindex is not None
        ]

    @cached_property
    def _canonical(self) -> dict[str, str]:
        return {_normal(surface): canonical for surface, canonical in self.synonyms.items()}

    @cached_property
    def _forms(self) -> tuple[tuple[str, str], ...]:
        # Longest first: an alternation takes the first branch that fits, and "hot dog" must win over "hot".
        return tuple(sorted(self._canonical.items(), key=lambda form: (-len(form[0]), form[0])))

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        # One group per form: which form matched is then known without folding the text's case a second time, which
        # for letters such as the dotless i gives something the regular expression never compared with.
        branches = "|".join("(" + r"\s+".join(map(re.escape, form.split())) + ")" for form, _ in self._forms)
        return re.compile(rf"(?<!\w)(?:{branches})(?!\w)", re.IGNORECASE)


def _normal(surface: str) -> str:
    return " ".join(surface.lower().split())
