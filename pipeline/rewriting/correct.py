"""Edits that make a text true, by rules over the facts. Only the wrong words change, or go."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Literal

from reward.text.fact_findings import by_facts, hallucinations
from reward.text.known import Known, Thing, opposite, place_of
from reward.text.lexicon import Lexicon
from reward.text.lists import Change, Listing, agrees, drop, end_of, listings, plural, tail, without
from reward.text.noun_phrases import Attribute, Phrase, read
from reward.text.nouns import change_phrase, phrase_of
from reward.text.sentences import split
from reward.text.types import Facts, Finding, Kind, Problem, Rewrite

#: What is wrong with a phrase: the object, its number, its place, its neighbour, or one of its attributes.
Fault = Literal["object", "count", "place", "beside"] | Attribute

_THERE = re.compile(r",?\s+(?=(?:there|you|we|one)\b)|,\s+$", re.IGNORECASE)

#: How a sentence begins that goes back to what the one before is about.
_GOES_BACK = re.compile(r"(?:it|its|they|their|he|she|his|her|both|these|those)\b", re.IGNORECASE)


def by_rules(
    text: str,
    findings: Iterable[Finding],
    facts: Facts | None,
    lexicon: Lexicon,
    absent: Literal["remove", "replace"] = "remove",
    complete: bool = True,
) -> Rewrite | Problem:
    """The text without its hallucinations.

    ==============  ================================================================================================
    attribute       becomes the right one, or goes if none is known
    count           becomes the right one, noun and verb with it, or goes
    relation        becomes the opposite one, or the right place; a place that has no name goes
    absent object   goes from its list, whose "and" and commas are repaired; a sentence of which nothing is left goes;
                    with ``absent="replace"``, a true object that the text does not name takes its place if there is one
    ==============  ================================================================================================

    A phrase that would say once more what another one says of the same object goes as well. Where the rules cannot take
    something out of a sentence, the whole sentence goes; that is also what becomes of a finding without a kind, unless
    the facts tell what is wrong in its words. With a sentence go those behind it that go back to it ("It is brown.").
    If no sentence would be left, a true object takes the place of an absent one in any case. All other sentences stay
    as they are, byte for byte.

    ``complete`` as for ``detect.by_facts``. Refuses with nothing_wrong, no_facts, nothing_left or cannot_correct.

    >>> from pipeline.scenes.scene_words import scenes
    >>> facts = {"objects": [{"name": "sun", "count": 2, "attributes": ["red"]}]}
    >>> text = "There is a blue sun, a cup and a moon. You can also see a king."
    >>> by_rules(text, by_facts(text, facts, scenes()), facts, scenes()).text
    'There are two red suns.'
    """
    bad = hallucinations(findings)
    if not bad:
        return Problem("nothing_wrong", "no finding is a hallucination")
    truth = Known.of(facts, lexicon, complete)
    if not truth.anything and not truth.closed:
        return Problem("no_facts", "nothing is known of the image; give facts, or let a model correct")
    plan = _Plan(text, truth, lexicon)
    plan.take(bad, hallucinations(by_facts(text, facts, lexicon, complete)))
    plan.decide(replace=absent == "replace")
    made = plan.write()
    if made is None:
        return Problem("nothing_left", "without what is wrong, the text says nothing")
    new = {phrase.name for phrase in read(made.text, lexicon)} - {phrase.name for phrase in plan.phrases}
    before, after = (len(hallucinations(by_facts(version, facts, lexicon, complete))) for version in (text, made.text))
    if not new <= set(truth.things) or after > (0 if all(fault.by == "facts" for fault in bad) else before):
        return Problem("cannot_correct", f"what rules make of it is still not true: {made.text!r}")
    return made


class _Plan:
    """What becomes of every phrase and sentence of a text. Phrases and sentences go by their numbers."""

    def __init__(self, text: str, truth: Known, lexicon: Lexicon) -> None:
        self.text, self.known, self.lexicon = text, truth, lexicon
        self.sentences = split(text)
        self.phrases = read(text, lexicon)
        self.faults: dict[int, set[Fault]] = {}
        self.lost: set[int] = set()  # sentences
        self.gone: set[int] = set()  # phrases
        self.written: dict[int, str] = {}  # what stands in the place of a phrase
        self.before = {number: plural(phrase, lexicon) for number, phrase in enumerate(self.phrases)}
        self.many = dict(self.before)
        self.exchanged: set[int] = set()  # phrases in whose place another object stands
        self.loose: dict[int, list[Change]] = {}  # changes outside of phrases, by sentence

    def take(self, bad: Sequence[Finding], sure: Sequence[Finding]) -> None:
        """``sure``: what the facts find, for findings that do not tell what is wrong."""
        for fault in bad:
            inside = [
                other for other in sure if other.sentence == fault.sentence and _touch(fault, other.start, other.end)
            ]
            for finding in [fault] if fault.kind is not None else inside:
                self._take(finding)
            if fault.kind is None and not inside:
                self.lost.add(fault.sentence)

    def _take(self, finding: Finding) -> None:
        hit = False
        for number, phrase in enumerate(self.phrases):
            for fault, kind, start, end in _places(phrase):
                if kind == finding.kind and phrase.sentence == finding.sentence and _touch(finding, start, end):
                    self.faults.setdefault(number, set()).add(fault)
                    hit = True
        if not hit:
            self.lost.add(finding.sentence)

    def decide(self, replace: bool) -> None:
        for number, faults in sorted(self.faults.items()):
            phrase = self.phrases[number]
            if phrase.name not in self.known.things or "object" in faults:
                self.gone.add(number)
            elif faults & {"count"} or any(isinstance(fault, Attribute) for fault in faults):
                self._repair(number, phrase, faults)
        self.gone |= {number for number, phrase in enumerate(self.phrases) if phrase.sentence in self.lost}
        # Those in a place first: few objects fit there.
        for number in sorted(self.faults, key=lambda at: (self.phrases[at].place is None, at)) if replace else ():
            if number in self.gone and self.phrases[number].sentence not in self.lost and self._exchange(number):
                self.gone.remove(number)
        for number, faults in sorted(self.faults.items()):
            if number not in self.gone and number not in self.exchanged:
                self._move(number, faults)

    def _repair(self, number: int, phrase: Phrase, faults: Collection[Fault], once: bool = True) -> bool:
        """Another attribute or number; with ``once``, the phrase goes if another one says as much of the object."""
        thing = self.known.things[phrase.name]
        others = [(at, other) for at, other in enumerate(self.phrases) if at != number and other.name == phrase.name]
        self.gone.add(number)
        if once and phrase.new and any(other.new and self._is_settled(at) for at, other in others):
            return False
        words = self._right_words(
            phrase, thing, faults, {attribute.value for _, other in others for attribute in other.attributes}
        )
        behind = _predicate([attribute for attribute in phrase.attributes if attribute.start >= phrase.end], words)
        count: int | None = 0
        if "count" in faults:
            kept = [
                words.get(attribute, self.text[attribute.start : attribute.end].lower())
                for attribute in phrase.attributes
            ]
            right = thing.counts(self.lexicon.attributes[word][1] for word in kept if word is not None)
            count = min(right, key=lambda number: (abs(number - (phrase.count or 0)), number), default=None)
        made = change_phrase(self.text, phrase, self.lexicon, words, count)
        if made is None or behind is None:
            return False
        self.gone.remove(number)
        self.written[number] = made
        if count != 0:
            self.many[number] = count != 1
        self.loose.setdefault(phrase.sentence, []).extend(behind)
        return True

    def _right_words(
        self, phrase: Phrase, thing: Thing, faults: Collection[Fault], taken: Collection[str]
    ) -> dict[Attribute, str | None]:
        """For each wrong attribute the right word; None if none is known, or all are said already."""
        values = {attribute.value for attribute in phrase.attributes if attribute not in faults}
        words: dict[Attribute, str | None] = {}
        for attribute in phrase.attributes:
            if attribute in faults:
                words[attribute] = word = self._word(attribute, thing, taken, values)
                values |= {self.lexicon.attributes[word][1]} if word is not None else set()
        return words

    def _is_settled(self, number: int) -> bool:
        """The phrase is right, or has been made so."""
        faults = self.faults.get(number, set())
        return self.phrases[number].sentence not in self.lost and (
            number in self.written or all(fault in ("place", "beside") for fault in faults)
        )

    def _word(
        self, attribute: Attribute, thing: Thing, late: Collection[str] = (), never: Collection[str] = ()
    ) -> str | None:
        """A right word of the same kind; none of ``never``, and one of ``late`` only if there is no other."""
        right = sorted(thing.values(attribute.kind) - set(never), key=lambda value: (value in late, value))
        return next((word for value in right for word in self._words(attribute.kind, value)), None)

    def _words(self, kind: str, value: str) -> Iterator[str]:
        return (word for word, meaning in self.lexicon.attributes.items() if meaning == (kind, value))

    def _exchange(self, number: int) -> bool:
        """A true object that the text does not name in the place of this one, which must be a whole item of a sentence
        that only lists: anywhere else, more is said of it."""
        phrase = self.phrases[number]
        end = phrase.place.whole[1] if phrase.place and phrase.place.start >= phrase.end else phrase.end
        phrases = {at: other for at, other in enumerate(self.phrases) if other.sentence == phrase.sentence}
        lists = [listing for listing in listings(self.text, self.sentences[phrase.sentence], phrases) if listing.whole]
        if not phrase.new or not any((phrase.start, end) in listing.items for listing in lists):
            return False
        named = {other.name for at, other in enumerate(self.phrases) if at not in self.gone}
        named |= {mention.name for text in self.written.values() for mention in self.lexicon.vocabulary.mentions(text)}
        things = [thing for name, thing in self.known.things.items() if name not in named]
        for thing in sorted(things, key=lambda candidate: not self._fits(phrase, candidate)):
            attributes = {attribute.kind: attribute for attribute in phrase.attributes if attribute.end <= phrase.end}
            words = (self._word(attribute, thing) for attribute in attributes.values())
            made = phrase_of(thing.name, thing.count, tuple(word for word in words if word), self.lexicon)
            if made is None:
                continue
            self.written[number] = made
            self.exchanged.add(number)
            self.many[number] = (thing.count or 1) > 1
            if not self._fits(phrase, thing):
                self._replace_place(phrase, thing)
            return True
        return False

    def _fits(self, phrase: Phrase, thing: Thing) -> bool:
        """The thing lies where the phrase says, all of it."""
        if phrase.place is None:
            return True
        inside, _ = thing.inside(self.lexicon.places[phrase.place.name][1], self.lexicon.margin)
        return bool(thing.boxes) and inside == len(thing.boxes)

    def _move(self, number: int, faults: Collection[Fault]) -> None:
        phrase = self.phrases[number]
        if "beside" in faults and phrase.beside is not None:
            self._turn(phrase)
        if "place" in faults:
            self._replace_place(phrase, self.known.things[phrase.name])

    def _turn(self, phrase: Phrase) -> None:
        assert phrase.beside is not None
        start, end, direction = phrase.beside.start, phrase.beside.end, phrase.beside.direction
        words = self.text[start:end]
        new = words.replace(direction, opposite(direction)) if direction in words else opposite(direction)
        self.loose.setdefault(phrase.sentence, []).append((start, end, new))

    def _replace_place(self, phrase: Phrase, thing: Thing) -> None:
        """Where the thing is, if that has a name and nothing else is said to be there; otherwise no place."""
        place = phrase.place
        assert place is not None
        sharing = [other for at, other in enumerate(self.phrases) if other.place == place and at not in self.gone]
        right = place_of(thing, self.lexicon, place.name) if len(sharing) <= 1 else None
        changes = self.loose.setdefault(phrase.sentence, [])
        if right is not None:
            changes.append((place.start, place.end, right))
            return
        start, end = place.whole
        if start >= phrase.end:
            changes.append((start, end, ""))
            return
        after = _THERE.match(self.text, end, phrase.start)
        change = (start, after.end(), "") if after else (start, end, "there")
        if change not in changes:
            changes.append(change)

    def write(self) -> Rewrite | None:
        """None if nothing is left."""
        lost = set(self.lost)
        texts: dict[int, str] = {}
        for number in range(len(self.sentences)):
            changes = None if number in lost else self._changes(number)
            if changes is None:
                lost.add(number)
            elif changes:
                texts[number] = self._sentence(number, changes)
        for number, sentence in enumerate(self.sentences[1:], start=1):
            if number - 1 in lost and _GOES_BACK.match(sentence.text):
                lost.add(number)
        if len(lost) == len(self.sentences):
            return self._last_resort()
        return self._rewrite({number: new for number, new in texts.items() if number not in lost}, lost)

    def _last_resort(self) -> Rewrite | None:
        """One sentence, with what went because it was said twice, or with another object."""
        for number in sorted(self.gone):
            phrase, faults = self.phrases[number], self.faults.get(number, set())
            true = phrase.name in self.known.things and "object" not in faults
            if phrase.sentence in self.lost:
                continue
            if not (true and self._repair(number, phrase, faults, once=False)) and not self._exchange(number):
                continue
            self.gone.discard(number)
            if true and number not in self.exchanged:
                self._move(number, faults)
            changes = self._changes(phrase.sentence)
            if changes is not None:
                texts = {phrase.sentence: self._sentence(phrase.sentence, changes)}
                return self._rewrite(texts, set(range(len(self.sentences))) - {phrase.sentence})
        return None

    def _rewrite(self, texts: Mapping[int, str], lost: Collection[int]) -> Rewrite:
        changes = [(self.sentences[number].start, self.sentences[number].end, new) for number, new in texts.items()]
        return Rewrite.of(self.text, [*changes, *drop(self.text, self.sentences, lost)])

    def _changes(self, number: int) -> list[Change] | None:
        """Of one sentence; None if nothing is left of it, or it cannot be told what would be."""
        sentence = self.sentences[number]
        phrases = {at: phrase for at, phrase in enumerate(self.phrases) if phrase.sentence == number}
        changes: list[Change] = list(self.loose.get(number, ()))
        away: list[tuple[int, int]] = []
        for listing in listings(self.text, sentence, phrases):
            gone, cut = self._off(listing)
            away += cut
            if len(gone) == len(listing.items):
                span = (listing.items[0][0], listing.items[-1][1])
                limit = span[1] if span[1] == end_of(self.text, sentence) or self.text[span[1]] in ",;" else -1
                whole = None if listing.whole else tail(self.text, *span, limit)
                if whole is None:
                    return None
                away.append(whole)
            elif not agrees(listing, gone, self.many, self.before):
                return None
            else:
                away += [listing.items[place] for place in gone]
                changes += without(self.text, listing, gone, self.many, self.before)
        changes += [(phrases[at].start, phrases[at].end, new) for at, new in self.written.items() if at in phrases]
        kept = [
            change for change in changes if not any(first <= change[0] and change[1] <= last for first, last in away)
        ]
        return [*kept, *((first, last, "") for first, last in _outer(away, kept))]

    def _off(self, listing: Listing) -> tuple[set[int], list[tuple[int, int]]]:
        """Items that go, and parts of others that do."""
        gone: set[int] = set()
        cut: list[tuple[int, int]] = []
        for place, members in enumerate(listing.members):
            for at in (member for member in members if member in self.gone):
                phrase = self.phrases[at]
                span = tail(self.text, phrase.start, phrase.end, listing.items[place][1]) if at != members[0] else None
                if span is None:
                    gone.add(place)
                else:
                    cut.append(span)
        return gone, cut

    def _sentence(self, number: int, changes: Iterable[Change]) -> str:
        sentence = self.sentences[number]
        text = sentence.text
        for start, end, new in sorted(set(changes), reverse=True):
            text = text[: start - sentence.start] + new + text[end - sentence.start :]
        return text if sentence.text[0].islower() else text[:1].upper() + text[1:]


def _predicate(behind: Sequence[Attribute], words: Mapping[Attribute, str | None]) -> list[Change] | None:
    """The changes of what is said behind a noun, of one or two attributes; None if nothing would be said."""
    left = [attribute for attribute in behind if words.get(attribute, "") is not None]
    if behind and not left:
        return None
    changes: list[Change] = [
        (attribute.start, attribute.end, word) for attribute in left if (word := words.get(attribute))
    ]
    if len(left) < len(behind):
        first, last = behind[0], behind[-1]
        changes.append((first.start, last.start, "") if last in left else (first.end, last.end, ""))
    return changes


def _outer(away: Sequence[tuple[int, int]], kept: Sequence[Change]) -> Iterator[tuple[int, int]]:
    """Parts that go and that no other change takes along."""
    for first, last in sorted(set(away)):
        inside = any(start <= first and last <= end for start, end, _ in kept)
        if not inside and not any(span != (first, last) and span[0] <= first and last <= span[1] for span in away):
            yield first, last


def _places(phrase: Phrase) -> Iterator[tuple[Fault, Kind, int, int]]:
    """What may be wrong with a phrase, the kind of finding that says so, and the words that would be wrong."""
    yield "object", "object", phrase.start, phrase.end
    for attribute in phrase.attributes:
        yield attribute, "attribute", attribute.start, attribute.end
    if phrase.counted is not None:
        yield "count", "count", *phrase.counted
    if phrase.place is not None:
        yield "place", "relation", phrase.place.start, phrase.place.end
    if phrase.beside is not None:
        yield "beside", "relation", phrase.beside.start, phrase.beside.end


def _touch(finding: Finding, start: int, end: int) -> bool:
    return finding.start < end and start < finding.end
