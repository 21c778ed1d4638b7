"""What the facts of an image say, object by object."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reward.text.lexicon import Area, Lexicon
from reward.text.noun_phrases import OPPOSITE, read
from reward.text.types import Facts

#: ``[x0, y0, x1, y1]``, fractions of the image's width or height.
Box = Sequence[float]
#: Nearer in line than this, nothing is left of or above anything.
CLEAR = 0.1
#: Boxes of the same name that share this much of the smaller one may show one object.
_SHARED = 0.5


@dataclass(frozen=True)
class Entry:
    """Several things of one name that are alike: how many (None: not known) and their attribute values by kind."""

    count: int | None
    values: Mapping[str, frozenset[str]]


@dataclass(frozen=True)
class Thing:
    """All things of one name.

    ``count`` is how many there are. Where only regions are known it is None: ``least`` are surely different ones,
    ``most`` are all there can be (None: any number).
    """

    name: str
    entries: tuple[Entry, ...] = ()
    boxes: tuple[Box, ...] = ()
    least: int | None = None
    most: int | None = None

    @property
    def count(self) -> int | None:
        return self._sum(self.entries)

    def counts(self, values: Iterable[str] = ()) -> frozenset[int]:
        """Every number that may rightly be said of those that have all these attribute values; empty if unknown."""
        wanted = frozenset(values)
        matching = [entry for entry in self.entries if wanted <= frozenset().union(*entry.values.values())]
        return frozenset(
            number for entries in (self.entries, matching) if entries and (number := self._sum(entries)) is not None
        )

    def values(self, kind: str) -> frozenset[str]:
        """The attribute values of a kind, of any of them."""
        return frozenset().union(*(entry.values.get(kind, frozenset()) for entry in self.entries))

    def tells(self, kind: str) -> bool:
        """Whether a value of the kind is known of every one of them."""
        return bool(self.entries) and all(entry.values.get(kind) for entry in self.entries)

    def inside(self, area: Area, margin: float) -> tuple[int, int]:
        """How many lie in a part of the image, and how many others are too near its border to say."""
        there = [_inside(box, area, margin) for box in self.boxes]
        return there.count(True), there.count(None)

    @staticmethod
    def _sum(entries: Sequence[Entry]) -> int | None:
        counts = [entry.count for entry in entries if entry.count is not None]
        return sum(counts) if entries and len(counts) == len(entries) else None


@dataclass(frozen=True)
class Known:
    """``things`` by name. ``closed``: what is none of them is not there. ``anything``: something is known at all."""

    things: Mapping[str, Thing]
    closed: bool

    @property
    def anything(self) -> bool:
        return bool(self.things)

    @classmethod
    def of(cls, facts: Facts | None, lexicon: Lexicon, complete: bool = True) -> Known:
        """Objects count first: they are all that is there, with whatever else regions and captions name. Without
        objects, those that the phrases of regions name are all, if the regions are ``complete``. Captions leave out.

        A name that the vocabulary does not know is left out: no text can be found to name it.
        """
        facts = facts or {}
        regions = [region for region in facts.get("regions") or () if region.get("phrase")]
        phrases = [(read(region["phrase"], lexicon), region["phrase"], region.get("box")) for region in regions]
        things = _of_objects(facts.get("objects") or (), lexicon) or _of_regions(phrases, lexicon)
        closed = bool(facts.get("objects")) or (bool(things) and complete)
        others = [phrase.name for of_region, _, _ in phrases for phrase in of_region]
        others += [phrase.name for text in facts.get("captions") or () for phrase in read(text, lexicon)]
        return cls({**{name: Thing(name) for name in others}, **things}, closed)


def lies(thing: Thing, direction: str, other: Thing) -> bool | None:
    """Whether ``thing`` is left of (right of, above, below) ``other``: all of the one of all of the other, with some
    room between them. None if neither that nor the opposite is so.

    >>> sun, boat = Thing("sun", boxes=([0, 0, 0.2, 0.2],)), Thing("boat", boxes=([0.5, 0, 0.7, 0.2],))
    >>> lies(sun, "left", boat), lies(sun, "right", boat), lies(sun, "above", boat)
    (True, False, None)
    """
    axis = 0 if direction in ("left", "right") else 1
    if not thing.boxes or not other.boxes:
        return None
    first, second = ([_centre(box)[axis] for box in side.boxes] for side in (thing, other))
    before = max(first) + CLEAR <= min(second)
    behind = max(second) + CLEAR <= min(first)
    if not before and not behind:
        return None
    return before if direction in ("left", "above") else behind


def place_of(thing: Thing, lexicon: Lexicon, like: str) -> str | None:
    """The smallest place in which all of the thing lies, with the preposition of the place ``like``, and of those that
    are the same the one that is called most like it; None if there is none."""
    preposition = lexicon.places[like][0]
    words_like = set(re.split(r"[ -]", like))

    def first(place: tuple[str, Area]) -> tuple[float, bool, int, int, str]:
        words = re.split(r"[ -]", place[0])
        return (
            _size(place[1]),
            ("-" in place[0]) != ("-" in like),
            -len(words_like.intersection(words)),
            abs(len(words) - len(words_like)),
            place[0],
        )

    places = [
        (name, area)
        for name, (before, area) in lexicon.places.items()
        if before == preposition and thing.boxes and thing.inside(area, lexicon.margin)[0] == len(thing.boxes)
    ]
    return min(places, key=first)[0] if places else None


def opposite(direction: str) -> str:
    """
    >>> opposite("above")
    'below'
    """
    return OPPOSITE[direction]


def _of_objects(objects: Iterable[Mapping[str, Any]], lexicon: Lexicon) -> dict[str, Thing]:
    things: dict[str, Thing] = {}
    for annotation in objects:
        name = lexicon.vocabulary.canonical(annotation["name"])
        if name is None:
            continue
        before = things.get(name, Thing(name))
        boxes = tuple(annotation.get("boxes") or ())
        count = annotation.get("count") if annotation.get("count") is not None else len(boxes) or None
        entry = Entry(count, lexicon.attributes_in(annotation.get("attributes") or ()))
        things[name] = Thing(name, (*before.entries, entry), (*before.boxes, *boxes))
    return things


def _of_regions(phrases: Iterable[tuple[Any, str, Box | None]], lexicon: Lexicon) -> dict[str, Thing]:
    """The box of a region shows what its phrase names first."""
    boxes: dict[str, list[tuple[Box, Mapping[str, frozenset[str]], int | None]]] = {}
    for of_region, text, box in phrases:
        if of_region and box is not None:
            first = of_region[0]
            many = lexicon.plural(first.surface) is not False and first.count != 1
            values = lexicon.attributes_in([text[attribute.start : attribute.end] for attribute in first.attributes])
            boxes.setdefault(first.name, []).append((box, values, None if many else 1))
    return {name: _thing(name, regions) for name, regions in boxes.items()}


def _thing(name: str, regions: Sequence[tuple[Box, Mapping[str, frozenset[str]], int | None]]) -> Thing:
    groups: list[list[tuple[Box, Mapping[str, frozenset[str]], int | None]]] = []
    for region in regions:
        near = [group for group in groups if any(_overlap(region[0], other[0]) for other in group)]
        groups = [group for group in groups if not any(group is other for other in near)]
        groups.append([region, *(member for group in near for member in group)])
    entries = []
    for group in groups:
        kinds = {kind for _, values, _ in group for kind in values}
        merged = {kind: frozenset().union(*(v.get(kind, frozenset()) for _, v, _ in group)) for kind in kinds}
        entries.append(Entry(None, merged))
    several = any(number is None for _, _, number in regions)
    largest = tuple(max((box for box, _, _ in group), key=lambda box: (_size(box), tuple(box))) for group in groups)
    return Thing(name, tuple(entries), largest, len(groups), None if several else len(regions))


def _overlap(first: Box, second: Box) -> bool:
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    return width > 0 and height > 0 and width * height >= _SHARED * min(_size(first), _size(second))


def _size(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])


def _centre(box: Box) -> tuple[float, float]:
    return (box[0] + box[2]) / 2, (box[1] + box[3]) / 2


def _inside(box: Box, area: Area, margin: float) -> bool | None:
    """By the box's centre. The image's own border needs no margin."""
    sure, out = True, False
    for at, first, last in zip(_centre(box), area[:2], area[2:], strict=True):
        sure = sure and (first <= 0 or at >= first + margin) and (last >= 1 or at <= last - margin)
        out = out or at < first - margin or at > last + margin
    return True if sure else False if out else None
