"""The words that a text is understood by: objects, attributes, numbers, places, and how to write them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

from reward.text.numbers import SMALL
from reward.text.object_vocabulary import Vocabulary, without_hyphens

#: A part of an image, ``[x0, y0, x1, y1]``: fractions of its width or height, origin at the top left.
Area = tuple[float, float, float, float]

#: The largest number that is written as a word.
MOST = 12

#: One of a kind -> several.
IRREGULAR = MappingProxyType(
    {
        "man": "men", "woman": "women", "child": "children", "person": "people", "foot": "feet", "tooth": "teeth",
        "goose": "geese", "mouse": "mice", "ox": "oxen", "knife": "knives", "wife": "wives", "life": "lives",
        "leaf": "leaves", "loaf": "loaves", "shelf": "shelves", "wolf": "wolves", "calf": "calves", "scarf": "scarves",
        "half": "halves", "thief": "thieves", "sheep": "sheep", "deer": "deer", "fish": "fish", "bison": "bison",
        "aircraft": "aircraft", "potato": "potatoes", "tomato": "tomatoes", "human": "humans",
    }
)  # fmt: skip
#: Spelled with a vowel and spoken without one, and the other way.
_SPOKEN_A = re.compile(r"(?:eu|ewe|one\b|once|uni(?!n)|us[aeiu]|ut[ei]|ubi|u\b)", re.IGNORECASE)
_SPOKEN_AN = re.compile(r"(?:hour|honest|honou?r|heir)", re.IGNORECASE)


@dataclass(frozen=True)
class Lexicon:
    """
    Args:
        name, version: of what is not in the vocabulary; ``version`` of the whole has the vocabulary's in it.
        vocabulary: the objects.
        attributes: word -> (kind, value). Words of one kind exclude each other: what is red is not blue.
        near: values that do not, as two may call one thing by either: a car is gray to one and silver to another.
        places: words behind "in the", "on the" or "at the" -> (preposition, part of the image).
        margin: how near a border of such a part, or how near in line, is neither here nor there.
        articles_count: "a sun" says that there is one sun, and no second.
        most: the largest number that is written; all from 1 to it.
    """

    name: str
    own_version: str
    vocabulary: Vocabulary
    attributes: Mapping[str, tuple[str, str]]
    places: Mapping[str, tuple[str, Area]]
    margin: float
    articles_count: bool
    most: int = MOST
    near: frozenset[frozenset[str]] = frozenset()

    def alike(self, value: str, values: Iterable[str]) -> bool:
        """Whether one of ``values`` may be meant by ``value``.

        >>> general(Vocabulary("demo", "1", {})).alike("silver", ["red", "gray"])
        True
        """
        return any(value == other or frozenset((value, other)) in self.near for other in values)

    @property
    def version(self) -> str:
        """Changes with everything that a text is understood by."""
        return f"{self.name}@{self.own_version}:{self.vocabulary.name}@{self.vocabulary.version}"

    def values(self, kind: str) -> tuple[str, ...]:
        """The attribute words of a kind, each value by its first word.

        >>> from pipeline.scenes.scene_words import scenes

        >>> scenes().values("colour")[:2]
        ('red', 'orange')
        """
        words: dict[str, str] = {}
        for word, (of_kind, value) in self.attributes.items():
            if of_kind == kind:
                words.setdefault(value, word)
        return tuple(words.values())

    def attributes_in(self, texts: Sequence[str]) -> dict[str, frozenset[str]]:
        """The values that the texts name, by their kind.

        >>> from pipeline.scenes.scene_words import scenes

        >>> general(scenes().vocabulary).attributes_in(["light grey", "wooden"])
        {'colour': frozenset({'gray'}), 'material': frozenset({'wooden'})}
        """
        by_kind: dict[str, set[str]] = {}
        for text in texts:
            for word in re.findall(r"[a-z]+", text.lower()):
                if word in self.attributes:
                    kind, value = self.attributes[word]
                    by_kind.setdefault(kind, set()).add(value)
        return {kind: frozenset(values) for kind, values in by_kind.items()}

    def plural(self, form: str) -> bool | None:
        """Whether a form of an object stands for several; None for one such as "scissors", which does not tell.

        >>> from pipeline.scenes.scene_words import scenes

        >>> scenes().plural("mice"), scenes().plural("Horse"), scenes().plural("lightning")
        (True, False, False)
        """
        key = self._key(form)
        if key in self._many.values():
            return None if self._many.get(key) == key else True
        if key in self._many:
            return False
        return None if key.endswith("s") and not key.endswith(("ss", "us", "is")) else False

    def form(self, form: str, many: bool) -> str | None:
        """The same noun for several things or for one; None if the vocabulary does not have it, for then a text that
        has it would no longer be found to name the object.

        >>> from pipeline.scenes.scene_words import scenes

        >>> scenes().form("mouse", True), scenes().form("knights", False), scenes().form("lightning", True)
        ('mice', 'knight', None)
        """
        key = self._key(form)
        if self.plural(key) is many:
            return key
        if many:
            return self._many.get(key)
        return next((single for single, several in self._many.items() if several == key), None)

    def noun(self, name: str, many: bool) -> str | None:
        """How the object ``name`` is called."""
        return self.form(name, many) or next(
            (noun_form for form in self._forms.get(name, ()) if (noun_form := self.form(form, many)) is not None), None
        )

    def number(self, count: int) -> str:
        """
        >>> from pipeline.scenes.scene_words import scenes
        >>> scenes().number(2), general(scenes().vocabulary).number(13)
        ('two', '13')
        """
        return SMALL[count] if 1 <= count <= MOST else str(count)

    def _key(self, form: str) -> str:
        """As the vocabulary spells it, if it has it without hyphens only."""
        key = form.lower()
        return key if key in self._named else without_hyphens(key)

    @cached_property
    def place_pattern(self) -> str:
        """A regular expression for the words of any place, the longest first."""
        forms = sorted(self.places, key=lambda form: (-len(form), form))
        return "(?:" + "|".join(re.escape(form).replace(r"\ ", r"\s+") for form in forms) + ")"

    @cached_property
    def _forms(self) -> Mapping[str, tuple[str, ...]]:
        forms: dict[str, list[str]] = {}
        for surface, name in self.vocabulary.synonyms.items():
            forms.setdefault(name, []).append(surface.lower())
        return {name: tuple(surfaces) for name, surfaces in forms.items()}

    @cached_property
    def _named(self) -> Mapping[str, str]:
        return {surface.lower(): name for surface, name in self.vocabulary.synonyms.items()}

    @cached_property
    def _many(self) -> Mapping[str, str]:
        """Singular form -> plural form, where the vocabulary has both."""
        return {
            form: several
            for form, name in self._named.items()
            for several in _plurals(form)
            if self._named.get(several) == name and (several != form or form in IRREGULAR)
        }


def article(words: str) -> str:
    """The indefinite article before ``words``.

    >>> [article(words) for words in ("orange cup", "unicorn", "hour", "sun", "umbrella")]
    ['an', 'a', 'an', 'a', 'an']
    """
    if _SPOKEN_AN.match(words):
        return "an"
    return "an" if words[:1].lower() in tuple("aeiou") and not _SPOKEN_A.match(words) else "a"


_COLOURS = (
    "red orange yellow green blue purple violet brown pink black white gray beige gold silver turquoise maroon tan"
)
_SAME = {"grey": "gray", "golden": "gold", "silvery": "silver", "reddish": "red", "blonde": "blond", "wood": "wooden"}
_MATERIALS = "wooden metal plastic leather brick stone concrete marble"
#: What two people call one thing.
_NEAR = (
    "gray silver, purple violet, red maroon, brown maroon, yellow gold, brown tan, brown beige, tan beige, white "
    "beige, turquoise blue, turquoise green, pink purple, stone brick, stone concrete, stone marble"
)


def general(vocabulary: Vocabulary) -> Lexicon:
    """English about the objects of ``vocabulary``: common colours and materials, numbers to twelve, sides, corners and
    the centre. "A dog" says nothing of a second one. Sizes and the like depend on who looks; no facts decide on them.
    """
    attributes = {word: ("colour", word) for word in _COLOURS.split()}
    attributes |= {word: ("material", word) for word in _MATERIALS.split()}
    attributes |= {word: attributes[value] for word, value in _SAME.items() if value in attributes}
    return Lexicon(
        name="general",
        own_version="2",
        vocabulary=vocabulary,
        attributes=attributes,
        places=dict(_general_places()),
        margin=0.1,
        articles_count=False,
        near=frozenset(frozenset(pair.split()) for pair in _NEAR.split(", ")),
    )


def _general_places() -> Iterator[tuple[str, tuple[str, Area]]]:
    rows, columns = {"top": 0.0, "bottom": 0.5}, {"left": 0.0, "right": 0.5}
    names = {"top": ("top", "upper"), "bottom": ("bottom", "lower")}
    for row, y in rows.items():
        for column, x in columns.items():
            for name in names[row]:
                for join in (" ", "-"):
                    yield f"{name}{join}{column} corner", ("in", (x, y, x + 0.5, y + 0.5))
                    yield f"{name}{join}{column}", ("in", (x, y, x + 0.5, y + 0.5))
        yield f"{row} half", ("in", (0.0, y, 1.0, y + 0.5))
        yield row, ("at", (0.0, y, 1.0, y + 0.5))
    for column, x in columns.items():
        for name in (f"{column} side", f"{column}-hand side", column):
            yield name, ("on", (x, 0.0, x + 0.5, 1.0))
        yield f"{column} half", ("in", (x, 0.0, x + 0.5, 1.0))
    for name in ("centre", "center", "middle"):
        yield name, ("in", (0.25, 0.25, 0.75, 0.75))


def _plurals(form: str) -> Iterator[str]:
    """What the plural may be, by the last word."""
    front, _, last = form.rpartition(" ")
    front += " " if front else ""
    if last in IRREGULAR:
        yield front + IRREGULAR[last]
        return
    if last.endswith("man"):
        yield f"{front}{last[:-2]}en"
    if re.search(r"[^aeiou]y$", last):
        yield f"{front}{last[:-1]}ies"
    if re.search(r"(?:s|x|z|ch|sh|o)$", last):
        yield f"{front}{last}es"
    yield f"{front}{last}s"
