"""Which objects go along with each other in a collection of images, and what they are usually like."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import combinations

from reward.text.known import Known
from reward.text.lexicon import Lexicon
from reward.text.types import Facts


@dataclass(frozen=True)
class Cooccurrence:
    """``images`` counts the images with an object, ``pairs`` those with both objects (names in order), ``values`` the
    images in which (object, attribute kind, value) is known. Counts of parts of a collection add up."""

    images: Mapping[str, int] = field(default_factory=dict)
    pairs: Mapping[tuple[str, str], int] = field(default_factory=dict)
    values: Mapping[tuple[str, str, str], int] = field(default_factory=dict)

    @classmethod
    def of(cls, facts: Iterable[Facts | None], lexicon: Lexicon) -> Cooccurrence:
        """Of the facts of each image, once.

        >>> from pipeline.scenes.scene_words import scenes
        >>> seen = Cooccurrence.of([{"objects": [{"name": "sun"}, {"name": "moon"}]}], scenes())
        >>> seen.together("moon", "sun"), seen.together("sun", "cup")
        (1, 0)
        """
        images: Counter[str] = Counter()
        pairs: Counter[tuple[str, str]] = Counter()
        values: Counter[tuple[str, str, str]] = Counter()
        kinds = {kind for kind, _ in lexicon.attributes.values()}
        for of_image in facts:
            things = Known.of(of_image, lexicon).things
            images.update(things.keys())
            pairs.update(combinations(sorted(things), 2))
            asked_for = [(name, kind) for name in things for kind in kinds]
            values.update((name, kind, value) for name, kind in asked_for for value in things[name].values(kind))
        return cls(dict(images), dict(pairs), dict(values))

    def __add__(self, other: Cooccurrence) -> Cooccurrence:
        return Cooccurrence(
            dict(Counter(self.images) + Counter(other.images)),
            dict(Counter(self.pairs) + Counter(other.pairs)),
            dict(Counter(self.values) + Counter(other.values)),
        )

    def together(self, name: str, other: str) -> int:
        """In how many images both are."""
        return self.pairs.get((name, other) if name <= other else (other, name), 0)

    def likely(self, name: str, there: Iterable[str]) -> float:
        """How much the objects that are there suggest this one: the sum over them of the share of their images that
        have it as well.

        >>> Cooccurrence({"sun": 4, "moon": 2}, {("moon", "sun"): 1}).likely("moon", ["sun"])
        0.25
        """
        return sum(self.together(name, other) / self.images[other] for other in there if self.images.get(other))

    def as_json(self) -> str:
        """The same for equal counts."""
        return json.dumps(
            [sorted(self.images.items()), sorted(self.pairs.items()), sorted(self.values.items())], ensure_ascii=False
        )

    @classmethod
    def from_json(cls, text: str) -> Cooccurrence:
        """
        Raises:
            ValueError: the text is not what ``as_json`` writes.
        """
        try:
            images, pairs, values = json.loads(text)
            return cls(
                dict(images),
                {(first, second): count for (first, second), count in pairs},
                {(name, kind, value): count for (name, kind, value), count in values},
            )
        except (TypeError, ValueError) as error:
            raise ValueError(f"no table of co-occurrences ({error}); count it again") from error
