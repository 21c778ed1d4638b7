"""Which objects a text names: a closed vocabulary, and where in the text each object is mentioned."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reward.text import word_arrays

Ints = np.ndarray[Any, np.dtype[np.int64]]
#: Runs of letters, digits and underscores, in lower case: what ``\b`` sees in ASCII text.
_WORD = word_arrays.table(lambda sign: sign.lower() if sign.isalnum() or sign == "_" else "", above=False)
_BLANK = np.array([chr(code).isspace() for code in range(128)] + [False] * 128)
#: Regular expressions that ignore case take these for s and i, so that a form with them fits an ASCII text.
_LIKE_ASCII = frozenset("\u017f\u0131")
_WAYS: tuple[Literal["NFC"], Literal["NFD"]] = ("NFC", "NFD")
_IGNORED = -2
#: What joins words to one. A dash does not.
_HYPHENS = "\\-\u2010\u2011"
_HYPHEN = re.compile(rf"(?<=\w)[{_HYPHENS}](?=\w)")
_SOME = r"(?:an?|the|this|that|these|those|one|two|three|some|each|every|another|his|her|its|their|my|your|our|\d+)"
#: What stands before a form of ``attributive`` that names a thing.
_TAKEN_UP = re.compile(
    rf"(?<!\w){_SOME}\s+(?:(?:half|whole|single|fresh|ripe|peeled|sliced|juicy|small|large|big|little|round|black)\s+)*$",
    re.IGNORECASE,
)
#: What stands behind it: the end of a phrase, or the next thing.
_LEFT_OFF = re.compile(
    rf"\s*(?:[.;:!?)\]\"]|$)|(?:\s*,|\s+(?:and|or))\s+{_SOME}\s|\s*,\s+(?:which|that|and\s+{_SOME})\s|"
    r"\s+(?:with|in|on|at|of|is|are|was|were|near|next|by|beside|behind|between|that|which|to|from|under|over|above|"
    r"below|sits|sitting|lies|lying|can|has|being|placed|there|for)\b",
    re.IGNORECASE,
)


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
        ignored: surface forms that name none of the objects although one is in them: "train track".
        attributive: surface forms that more often say what something else is like: "orange". They name their object
            only behind an article, a number or the like, and where no noun follows: "an orange", but neither "an orange
            shirt" nor "the wall is orange".

    Raises:
        ValueError: a surface form is empty or stands for something else than a text, or one form, or one name, means
            different objects; case and spacing make no difference.

    >>> vocabulary = Vocabulary("demo", "1", {"dog": "dog", "dogs": "dog", "hot dog": "food"})
    >>> [(m.start, m.surface, m.name) for m in vocabulary.mentions("A Hot dog and two dogs.")]
    [(2, 'Hot dog', 'food'), (18, 'dogs', 'dog')]
    """

    name: str
    version: str
    synonyms: Mapping[str, str]
    ignored: frozenset[str] = frozenset()
    attributive: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        seen: dict[str, str] = {}
        for surface, canonical in self.synonyms.items():
            if not isinstance(surface, str) or not isinstance(canonical, str) or not canonical.strip():
                raise ValueError(f"vocabulary {self.name!r}: {_shape(surface, canonical)}")
            key = _normal(surface)
            if not key:
                raise ValueError(f"vocabulary {self.name!r}: an empty surface form for {canonical!r}; remove it")
            self._one_meaning(surface, seen.setdefault(key, canonical), canonical)
        for canonical in sorted(set(self.synonyms.values())):
            # {"dogs": "dog", "dog": "animal"}: the facts' dog would be one thing and the text's another.
            self._one_meaning(canonical, seen.setdefault(_normal(canonical), canonical), canonical)

    def _one_meaning(self, form: str, first: str, second: str) -> None:
        if first != second:
            raise ValueError(f"vocabulary {self.name!r}: {form!r} names both {first!r} and {second!r}; keep one")

    @cached_property
    def objects(self) -> frozenset[str]:
        """The canonical names."""
        return frozenset(self.synonyms.values())

    def canonical(self, name: str) -> str | None:
        """The object that ``name`` stands for, or None if the vocabulary does not know it.

        >>> Vocabulary("demo", "1", {"dogs": "dog", "hot dog": "food"}).canonical("Hot-dog")
        'food'
        """
        if name in self.objects:
            return name
        form = _normal(name)
        return self._canonical.get(form) or self._canonical.get(without_hyphens(form)) or None

    def mentions(self, text: str) -> list[Mention]:
        """Every mention in order of appearance, without overlaps: leftmost first, then the longest form.

        Whole words only, whatever their case; the words of one term may stand apart by any white space or a hyphen. A
        word with a hyphen behind it says what another one is like: "a dog-shaped balloon" is no dog.
        """
        if not self._forms:
            return []
        return [
            Mention(match.start(), match.end(), match.group(), name)
            for match in self._pattern.finditer(text)
            if match.lastindex is not None
            and (name := self._forms[match.lastindex - 1][1])
            and (_normal(match.group()) not in self.attributive or _is_thing(text, match.start(), match.end()))
        ]

    def named_objects(self, texts: Any) -> tuple[Ints, Ints]:
        """The mentions in a string array, in no particular order: for each the index of its text, and that of its
        object in ``sorted(self.objects)``.

        The same mentions as ``mentions`` finds. ASCII texts are looked up word by word, all at once; the others, and
        those that may hold a form with other signs than letters and digits or one of ``attributive``, go through
        ``mentions``.
        """
        one_by_one = ~pc.string_is_ascii(texts).to_numpy(zero_copy_only=False)
        if self._index.other is not None:
            odd = pc.match_substring_regex(texts, self._index.other, ignore_case=True)
            one_by_one |= odd.to_numpy(zero_copy_only=False)
        text, thing = self._index.look_up(word_arrays.split(texts, _WORD))
        at_once = ~one_by_one[text]
        slow = [
            (i, self._index.place[mention.name])
            for i in np.flatnonzero(one_by_one).tolist()
            for mention in self.mentions(texts[i].as_py())
        ]
        rest = np.array(slow, np.int64).reshape(-1, 2)
        return np.concatenate([text[at_once], rest[:, 0]]), np.concatenate([thing[at_once], rest[:, 1]])

    @cached_property
    def _index(self) -> _Index:
        return _Index.of(self._canonical, self.attributive)

    @cached_property
    def _canonical(self) -> dict[str, str]:
        """Of every form in one spelling; "" for those that are ignored."""
        ignored = {_normal(surface): "" for surface in self.ignored}
        return {**ignored, **{_normal(surface): canonical for surface, canonical in self.synonyms.items()}}

    @cached_property
    def _forms(self) -> tuple[tuple[str, str], ...]:
        # Longest first: an alternation takes the first branch that fits, and "hot dog" must win over "hot".
        # A text may be composed or decomposed, whichever way the form is written.
        spelt = {unicodedata.normalize(way, form): name for form, name in self._canonical.items() for way in _WAYS}
        return tuple(sorted(spelt.items(), key=lambda form: (-len(form[0]), form[0])))

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        # One group per form: which form matched is then known without folding the text's case a second time, which
        # for letters such as the dotless i gives something the regular expression never compared with.
        between = rf"(?:\s+|[{_HYPHENS}])"
        branches = "|".join("(" + between.join(map(re.escape, form.split())) + ")" for form, _ in self._forms)
        return re.compile(rf"(?<!\w)(?:{branches})(?![\w\u0300-\u036f]|[{_HYPHENS}]\w)", re.IGNORECASE)


@dataclass(frozen=True)
class _Index:
    """Forms that consist of plain words, to be found by looking words up.

    ``words`` holds every word of these forms; those that are ``unsure`` are up to what stands around them. Forms of
    several words are paths: they begin at the number of their first word, and ``steps`` leads from (place, next
    word) to the next place. ``things`` maps a place to the object whose form ends there, to ``_IGNORED``, or to -1
    where none ends. ``other`` is a pattern for what may be a form that cannot be found this way.
    """

    place: Mapping[str, int]
    words: pa.StringArray
    steps: Mapping[tuple[int, int], int]
    things: Ints
    longest: int
    other: str | None

    @classmethod
    def of(cls, forms: Mapping[str, str], unsure: Collection[str]) -> _Index:
        place = {name: i for i, name in enumerate(sorted({name for name in forms.values() if name}))}
        if any(_LIKE_ASCII & set(form) for form in forms):
            return cls(place, pa.array([], pa.string()), {}, np.zeros(0, np.int64), 1, "")
        ascii_forms = [form for form in forms if form.isascii()]  # no other is in an ASCII text
        plain = [form for form in ascii_forms if re.fullmatch(r"\w+( \w+)*", form)]
        number = {word: i for i, word in enumerate(sorted({word for form in plain for word in form.split()}))}
        steps: dict[tuple[int, int], int] = {}
        ends: dict[int, int] = {}
        for form in plain:
            at, *following = (number[word] for word in form.split())
            for word in following:
                at = steps.setdefault((at, word), len(number) + len(steps))
            ends[at] = place.get(forms[form], _IGNORED)
        things = np.full(len(number) + len(steps), -1, np.int64)
        things[list(ends)] = list(ends.values())
        odd = [
            r"[\s\x0b\x1c-\x1f]+".join(map(re.escape, form.split())) for form in {*ascii_forms} - {*plain} | {*unsure}
        ]
        if number:  # a word in front of a hyphen: "hot-dog", "dog-shaped"
            odd.append(rf"\b(?:{'|'.join(map(re.escape, number))})-\w")
        longest = max((len(form.split()) for form in plain), default=1)
        return cls(place, pa.array(list(number), pa.string()), steps, things, longest, "|".join(sorted(odd)) or None)

    def look_up(self, split: word_arrays.Words) -> tuple[Ints, Ints]:
        """(text, object) of every mention, leftmost first, then the longest form, without overlaps."""
        word = pc.fill_null(pc.index_in(split.values, value_set=self.words), -1).to_numpy(zero_copy_only=False)
        indexed = np.flatnonzero(word >= 0)
        thing = np.full(len(word), -1, np.int64)
        thing[indexed] = self.things[word[indexed]]
        taken = -1  # the last word of the last form of several words
        for start, size, of in self._phrases(split, word):
            if start > taken:
                taken = start + size - 1
                thing[start : taken + 1] = -1
                thing[start] = of
        named = np.flatnonzero(thing >= 0)
        return split.text[named], thing[named]

    def _phrases(self, split: word_arrays.Words, word: Ints) -> Iterator[tuple[int, int, int]]:
        """(first word, number of words, object) of the longest form of several words at every word that begins one."""
        if not self.steps:
            return
        first = np.zeros(len(self.words), bool)
        first[[at for at, _ in self.steps if at < len(first)]] = True
        signs = np.cumsum(~_BLANK[split.source] & (_WORD[split.source] == word_arrays.BETWEEN))
        # Whether only white space lies between a word and the next one, and both are of one text.
        joined = (split.text[1:] == split.text[:-1]) & (signs[split.starts[1:] - 1] == signs[split.ends[:-1] - 1])
        begins = np.flatnonzero((word[:-1] >= 0) & (word[1:] >= 0) & joined)
        for start in begins[first[word[begins]]].tolist():
            at, best = int(word[start]), None
            for size in range(2, self.longest + 1):
                last = start + size - 1
                step = self.steps.get((at, int(word[last]))) if last < len(word) and joined[last - 1] else None
                if step is None:
                    break
                at = step
                if self.things[at] != -1:
                    best = (start, size, int(self.things[at]))
            if best is not None:
                yield best


def _is_thing(text: str, start: int, end: int) -> bool:
    """Whether a word that may say what others are like is a thing by itself.

    >>> [_is_thing(text, text.index("orange"), text.index("orange") + 6) for text in ("An orange.", "An orange cat.")]
    [True, False]
    """
    return _TAKEN_UP.search(text[max(0, start - 60) : start]) is not None and _LEFT_OFF.match(text, end) is not None


def without_hyphens(form: str) -> str:
    """With blanks in their place: "hot-dog" is another spelling of "hot dog".

    >>> without_hyphens("hot-dog")
    'hot dog'
    """
    return _HYPHEN.sub(" ", form)


def _normal(surface: str) -> str:
    return " ".join(unicodedata.normalize("NFC", surface).lower().split())


def _shape(surface: object, canonical: object) -> str:
    """What a vocabulary looks like, with the words of one that does not."""
    forms = [form for form in canonical if isinstance(form, str)] if isinstance(canonical, list | tuple) else []
    shown = {form: str(surface) for form in forms[:3]} or {"dog": "dog", "dogs": "dog", "puppy": "dog"}
    return (
        f"{surface!r} stands for {canonical!r:.80}, which is no name of an object; write every surface form with its "
        f"object: {json.dumps(shown, ensure_ascii=False)}"
    )
