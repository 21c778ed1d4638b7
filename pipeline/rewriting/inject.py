"""Hallucinations put into a text: plausible, and surely not true of its image.

What POVID does with a language model (Zhou et al. 2024, arXiv 2402.11411: wrong co-occurring objects, logical
relations, entities' attributes), by rules over facts. Every fault is checked against the facts before it counts.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from reward.text.cooccurrence import Cooccurrence
from reward.text.fact_findings import by_facts, hallucinations
from reward.text.known import Known, opposite
from reward.text.language import language
from reward.text.lexicon import Lexicon
from reward.text.lists import Change, Listing, listings, plural, without
from reward.text.noun_phrases import Phrase, read
from reward.text.nouns import change_phrase, phrase_of
from reward.text.sentences import split
from reward.text.types import KINDS, Facts, Finding, Kind, Problem, Rewrite

T = TypeVar("T", str, int)

#: How much an object counts that never goes along with what is there.
_UNSEEN = 1e-3
#: A sentence after which the next one may begin.
_ENDS = re.compile(r"[.!?][\"')\u201d\u2019]*\s*$")
#: Share of the wrong objects that stand in the place of a true one; the others are added.
_SWAPPED = 0.5


def by_rules(
    text: str,
    facts: Facts | None,
    lexicon: Lexicon,
    cooccurrence: Cooccurrence,
    seed: int,
    kinds: Sequence[Kind] = KINDS,
    faults: int = 1,
    complete: bool = True,
) -> Rewrite | Problem:
    """The text with up to ``faults`` faults more, at least one, each of one of the kinds, which are equally likely.

    ============  ==================================================================================================
    object        an object that is not there is added to a list, or stands in the place of one that is; the more
                  likely, the more often it goes along with what is there
    attribute     another value of the same kind; the more likely, the more often the object has it
    count         another number, mostly the next one
    relation      the opposite one, or another place
    ============  ==================================================================================================

    Only phrases of which nothing is wrong are made wrong, and none twice. ``complete`` as for ``detect.by_facts``: of
    regions that may leave something out, nobody knows what is not there. Refuses with no_facts or nothing_to_change,
    the latter also for a text in another language than English, and for one that names nothing that is there: in what
    was not understood nothing is known to be right.
    """
    truth = Known.of(facts, lexicon, complete)
    if not truth.anything or not truth.closed:
        return Problem("no_facts", "it is not known what is not in the image; give facts with objects or regions")
    rng = random.Random(seed)
    if language(text) not in (None, "en") or not any(phrase.name in truth.things for phrase in read(text, lexicon)):
        return Problem("nothing_to_change", "no phrase that is understood names something that is there")
    task = _Injection(text, facts or {}, truth, lexicon, cooccurrence, complete)
    changes: list[Change] = []
    for _ in range(faults):
        fault = next(
            (proposal for kind in rng.sample(kinds, len(kinds)) if (proposal := task.fault(kind, changes, rng))), None
        )
        if fault is None:
            break
        changes += fault
    if not changes:
        return Problem("nothing_to_change", f"no phrase can be made wrong by {', '.join(kinds)}")
    return Rewrite.of(text, changes)


@dataclass(frozen=True)
class _Injection:
    text: str
    facts: Facts
    known: Known
    lexicon: Lexicon
    cooccurrence: Cooccurrence
    complete: bool

    def fault(self, kind: Kind, changes: Sequence[Change], rng: random.Random) -> list[Change] | None:
        """The first one tried that does not touch earlier changes and that the facts call wrong, in this way alone."""
        before = self._wrong(changes)
        for made in self._tries(kind, self._right(changes), rng):
            if not _apart(made, changes):
                continue
            after = self._wrong([*changes, *made])
            more = [sum(finding.kind == kind for finding in findings) for findings in (before, after)]
            if len(after) == len(before) + 1 and more[1] == more[0] + 1:
                return made
        return None

    def _wrong(self, changes: Iterable[Change]) -> tuple[Finding, ...]:
        return hallucinations(self._findings(Rewrite.of(self.text, changes).text))

    def _findings(self, text: str) -> tuple[Finding, ...]:
        return by_facts(text, self.facts, self.lexicon, self.complete)

    def _right(self, changes: Sequence[Change]) -> list[tuple[int, Phrase]]:
        """The phrases of which nothing is wrong and that are still as they were."""
        bad = hallucinations(self._findings(self.text))
        spans = [(finding.start, finding.end) for finding in bad] + [(start, end) for start, end, _ in changes]
        return [
            (number, phrase)
            for number, phrase in enumerate(read(self.text, self.lexicon))
            if phrase.name in self.known.things
            and not any(start < phrase.end and phrase.start < end for start, end in spans)
        ]

    def _tries(self, kind: Kind, phrases: Sequence[tuple[int, Phrase]], rng: random.Random) -> Iterator[list[Change]]:
        if kind == "object":
            yield from self._objects(phrases, rng)
            return
        make = {"attribute": self._attribute, "count": self._count, "relation": self._relation}[kind]
        for number, phrase in rng.sample(list(phrases), len(phrases)):
            yield from make(number, phrase, rng)

    def _objects(self, phrases: Sequence[tuple[int, Phrase]], rng: random.Random) -> Iterator[list[Change]]:
        named = {phrase.name for phrase in read(self.text, self.lexicon)}
        there = sorted(self.known.things)
        absent = sorted(self.lexicon.vocabulary.objects - set(there) - named)
        weights = {name: self.cooccurrence.likely(name, there) + _UNSEEN for name in absent}
        swap = rng.random() < _SWAPPED
        for name in _draw_order(weights, rng):
            ways = [self._swaps(name, phrases, rng), self._additions(name, rng)]
            for way in ways if swap else reversed(ways):
                yield from way

    def _swaps(self, name: str, phrases: Sequence[tuple[int, Phrase]], rng: random.Random) -> Iterator[list[Change]]:
        for _, phrase in rng.sample(list(phrases), len(phrases)):
            behind = [attribute for attribute in phrase.attributes if attribute.start >= phrase.end]
            if phrase.new and phrase.beside is None and not behind:
                made = change_phrase(self.text, phrase, self.lexicon, name=name)
                if made is not None:
                    yield [(phrase.start, phrase.end, made)]

    def _additions(self, name: str, rng: random.Random) -> Iterator[list[Change]]:
        """To a list that does nothing but list, and not in one place; in any other text, as a sentence of its own."""
        phrases = dict(enumerate(read(self.text, self.lexicon)))
        words = tuple(self._words(name, phrases.values(), rng))
        made = phrase_of(name, 1, words, self.lexicon)
        if made is None:
            return
        places = []
        sentences = split(self.text)
        for number, sentence in enumerate(sentences):
            here = {at: phrase for at, phrase in phrases.items() if phrase.sentence == number}
            if not any(phrase.place for phrase in here.values()):
                places += [listing for listing in listings(self.text, sentence, here) if listing.whole]
        for listing in rng.sample(places, len(places)):
            yield list(self._append(listing, made))
        if sentences and _ENDS.search(sentences[-1].text):
            yield [(sentences[-1].end, sentences[-1].end, f" There is also {made}.")]

    def _append(self, listing: Listing, made: str) -> Iterator[Change]:
        end = listing.items[-1][1]
        if len(listing.items) == 1:
            yield end, end, f" and {made}"
            return
        last = (listing.items[-2][1], listing.items[-1][0])
        final = self.text[slice(*last)]
        if "and" in final:
            yield *last, ", "
        yield end, end, f"{final}{made}"

    def _words(self, name: str, phrases: Iterable[Phrase], rng: random.Random) -> Iterator[str]:
        """An attribute of each kind that most phrases of the text have."""
        named = list(phrases)
        for kind in sorted({attribute.kind for phrase in named for attribute in phrase.attributes}):
            if sum(any(attribute.kind == kind for attribute in phrase.attributes) for phrase in named) * 2 > len(named):
                yield self._values(name, kind, (), rng)[0]

    def _values(self, name: str, kind: str, without: Iterable[str], rng: random.Random) -> list[str]:
        """Words for the values of a kind, in an order in which what the object often is comes early."""
        left = [word for word in self.lexicon.values(kind) if self.lexicon.attributes[word][1] not in set(without)]
        seen = self.cooccurrence.values
        counts = {word: seen.get((name, kind, self.lexicon.attributes[word][1]), 0) + 1.0 for word in left}
        return list(_draw_order(counts, rng))

    def _attribute(self, number: int, phrase: Phrase, rng: random.Random) -> Iterator[list[Change]]:
        thing = self.known.things[phrase.name]
        for attribute in rng.sample(phrase.attributes, len(phrase.attributes)):
            for word in self._values(phrase.name, attribute.kind, thing.values(attribute.kind), rng):
                if attribute.start >= phrase.end:
                    yield [(attribute.start, attribute.end, word)]
                elif (made := change_phrase(self.text, phrase, self.lexicon, {attribute: word})) is not None:
                    yield [(phrase.start, phrase.end, made)]

    def _count(self, number: int, phrase: Phrase, rng: random.Random) -> Iterator[list[Change]]:
        stated = phrase.count
        if stated is None:
            return
        weights = {
            count: 1.0 / abs(count - stated) ** 2 for count in range(1, self.lexicon.most + 1) if count != stated
        }
        for count in _draw_order(weights, rng):
            made = change_phrase(self.text, phrase, self.lexicon, count=count)
            if made is not None:
                yield [(phrase.start, phrase.end, made), *self._verbs(number, phrase, count)]

    def _verbs(self, number: int, phrase: Phrase, count: int) -> Iterator[Change]:
        phrases = {
            at: other for at, other in enumerate(read(self.text, self.lexicon)) if other.sentence == phrase.sentence
        }
        before = {at: plural(other, self.lexicon) for at, other in phrases.items()}
        for listing in listings(self.text, split(self.text)[phrase.sentence], phrases):
            if any(number in members for members in listing.members):
                made = without(self.text, listing, (), {**before, number: count != 1}, before)
                yield from (change for change in made if self.text[change[0] : change[1]] != change[2])

    def _relation(self, number: int, phrase: Phrase, rng: random.Random) -> Iterator[list[Change]]:
        if phrase.beside is not None:
            start, end, direction = phrase.beside.start, phrase.beside.end, phrase.beside.direction
            words = self.text[start:end]
            if direction in words:
                yield [(start, end, words.replace(direction, opposite(direction)))]
        if phrase.place is not None:
            preposition, area = self.lexicon.places[phrase.place.name]
            names = [
                name
                for name, (needed, other) in self.lexicon.places.items()
                if needed == preposition and other != area and ("-" in name) == ("-" in phrase.place.name)
            ]
            for name in rng.sample(names, len(names)):
                yield [(phrase.place.start, phrase.place.end, name)]


def _draw_order(weights: Mapping[T, float], rng: random.Random) -> Iterator[T]:
    """All of them in a random order, one after the other by weight."""
    left = dict(weights)
    while left:
        key = rng.choices(list(left), list(left.values()))[0]
        del left[key]
        yield key


def _apart(changes: Iterable[Change], other: Sequence[Change]) -> bool:
    """Whether no change touches one of the others."""
    return all(end < first or last < start for start, end, _ in changes for first, last, _ in other)
