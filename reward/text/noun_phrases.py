"""What a text says of objects: that they are there, what they are like, how many, and where. By rules.

Read is what stands close together: the words before a noun ("two large red boats"), what is said of it at once ("The
boat is red"), a place before or behind it ("In the centre is a boat", "a boat on the left"), and the order of two
neighbours ("a boat below the sun"). What is said of pronouns or across sentences is not, and neither is what is denied.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from reward.text.denials import DENIES, denied_spans, is_denied_behind
from reward.text.lexicon import MOST, Lexicon, general
from reward.text.numbers import number_words
from reward.text.object_vocabulary import Mention, Vocabulary
from reward.text.sentences import split
from reward.text.types import Sentence

#: Of two objects, where the first is; and the words for it, without "the".
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
_DIRECTIONS = {
    "left": r"(?:to\s+the\s+|on\s+the\s+)?left\s+(?:side\s+)?of",
    "right": r"(?:to\s+the\s+|on\s+the\s+)?right\s+(?:side\s+)?of",
    "above": r"above",
    "below": r"below|beneath|underneath",
}

Span = tuple[int, int]
#: (what kind of statement, object, ...): see ``assertions``.
Assertion = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Attribute:
    """``text[start:end]`` says ``value`` of the object, an attribute of this ``kind``."""

    start: int
    end: int
    kind: str
    value: str


@dataclass(frozen=True, slots=True)
class Place:
    """``text[start:end]`` are the words of a place, without the preposition; ``name`` is a key of ``Lexicon.places``.

    ``whole`` is all that says so: "in the centre", and the comma before it.
    """

    start: int
    end: int
    name: str
    whole: Span


@dataclass(frozen=True, slots=True)
class Beside:
    """``text[start:end]`` says that the object lies in this ``direction`` of the object ``other``."""

    start: int
    end: int
    direction: str
    other: str


@dataclass(frozen=True, slots=True)
class Phrase:
    """One mention of an object with everything that is said of it.

    ``text[start:end]`` goes from the first word that belongs to the noun to the noun, which is at ``noun``. ``counted``
    is where the number or the article is that says ``count``; an article that says no number, such as "some", is only
    ``determiner``. ``new``: the phrase brings the object up ("a dog", "two dogs", "dogs"), rather than going back to it
    ("the dog").
    """

    sentence: int
    start: int
    end: int
    noun: Span
    name: str
    surface: str
    determiner: Span | None
    count: int | None
    counted: Span | None
    new: bool
    attributes: tuple[Attribute, ...] = ()
    place: Place | None = None
    beside: Beside | None = None


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NUMBERS = number_words(1, MOST)
_ARTICLES = frozenset({"a", "an"})
_VAGUE = frozenset({"some", "several", "many", "few", "multiple", "various", "another", "numerous", "any"})
_KNOWN = _words("the this that these those his her its their my our your each every both all other whose")
_NO = _words("no not without neither nor never cannot isn't aren't wasn't weren't doesn't don't")
_DETERMINERS = _ARTICLES | _VAGUE | _KNOWN | _NO | frozenset(_NUMBERS)
#: Words that no noun phrase goes across.
_STOP = _words(
    "and or but of with in on at by to from near under over above below behind beside between next is are was were be "
    "being been has have had shows show see seen as like also there against into onto holding wearing carrying"
)
#: Adjectives that belong to a noun even if it has no determiner.
_ADJECTIVES = _words("small large big tiny huge little tall short long old young new bright dark light pale")
#: How many words before a noun are looked at.
_REACH = 6
_BEFORE = re.compile(rf"(?:[\w'\u2019-]+,?\s+){{1,{_REACH}}}$")
_WORD = re.compile(r"([\w'\u2019-]+)(,?)\s+")
_GROUP = re.compile(
    r"\b(?:(?:a|an|the|several|many|some)\s+)?(?:(?:small|large|big)\s+)?"
    r"(?P<what>pair|couple|group|number|lots?|bunch|set|row|pile|flock|herd|variety|stack|line|crowd|handful)\s+of\s+$",
    re.IGNORECASE,
)
#: A pair of them is one thing to some, and two to others.
_BY_PAIR = _words(
    "scissors skis glasses goggles gloves mittens shoes boots sneakers sandals skates socks pants jeans shorts"
)
_BE = r"(?:is|are|was|were)"
_STANDS = "sits?|stands?|lies|lying|sitting|standing|located|placed|positioned|visible"
_POSTURE = rf"(?:{_BE}|that|which|can|be|seen|{_STANDS})"
_OF_IMAGE = r"(?:\s+of\s+(?:the|this)\s+(?:image|picture|photo|photograph|scene|frame))?"
_PREPOSITION = r"(?:in|on|at|to)\s+the"
_LOOKS = rf"\s+(?:{_BE}|looks?|appears?)\s+(?:(?:very|mostly|also|all|both|mainly|painted|bright|dark|light)\s+)*"
#: Between a place and what is there.
_VERB = (
    rf"(?:,?\s+(?:there\s+)?(?:{_BE}|stands?|sits?|lies|lie)\s+(?:also\s+)?"
    r"|,?\s+(?:you|we|one)\s+can\s+(?:also\s+)?see\s+|,\s+)"
)
_OR = re.compile(r"\s*(?:,\s*)?(?:,|or\b|nor\b|and\b)", re.IGNORECASE)
#: Between two that something is said of together.
_TOGETHER = re.compile(r"\s*(?:,\s*(?:and|or)|,|\b(?:and|or))\s+", re.IGNORECASE)
#: Between two items of a list.
JOINS = re.compile(r"\s*(?:,\s*and|,|\band)\s+", re.IGNORECASE)


def read(text: str, lexicon: Lexicon) -> tuple[Phrase, ...]:
    """Every mention that is not denied, in order, with what is said of it.

    >>> from pipeline.scenes.scene_words import scenes
    >>> one, other = read("There are two red mice. In the centre is a sun.", scenes())
    >>> one.name, one.count, [(a.kind, a.value) for a in one.attributes], other.place.name
    ('mouse', 2, [('colour', 'red')], 'centre')
    """
    sentences = split(text)
    mentions = _mentions(text, lexicon)
    result: list[Phrase] = []
    for number, sentence in enumerate(sentences):
        of_sentence = [mention for mention in mentions if sentence.start <= mention.start < sentence.end]
        phrases = list(_there(sentence, list(_phrases(text, number, sentence, of_sentence, lexicon))))
        result += _with_places(text, sentence, phrases, lexicon)
    return tuple(result)


_DENIES = re.compile(DENIES, re.IGNORECASE | re.ASCII)  # as Arrow's expressions are read


def affirmed(text: str, vocabulary: Vocabulary) -> list[Mention]:
    """The mentions of a text but for those that it denies, or asks about.

    >>> words = Vocabulary("demo", "1", {"sun": "sun", "boat": "boat", "boats": "boat"})
    >>> [mention.surface for mention in affirmed("A sun. There are no boats.", words)]
    ['sun']
    """
    mentions = vocabulary.mentions(text)
    if not mentions or _DENIES.search(text) is None:
        return mentions
    lexicon = general(vocabulary)
    looked_at = {mention.start for mention in _mentions(text, lexicon)}
    denied = looked_at - {phrase.noun[0] for phrase in read(text, lexicon)}
    return [mention for mention in mentions if mention.start not in denied]


def assertions(text: str, lexicon: Lexicon) -> frozenset[Assertion]:
    """What the text says, each thing once: ("object", name), ("attribute", name, kind, value), ("count", name, number
    and the attributes counted), ("place", name, place), ("beside", name, direction, other).

    >>> from pipeline.scenes.scene_words import scenes
    >>> sorted(assertions("There are two red mice.", scenes()))
    [('attribute', 'mouse', 'colour', 'red'), ('count', 'mouse', '2', 'red'), ('object', 'mouse')]
    """
    return frozenset(fact for phrase in read(text, lexicon) for fact in _assertions(phrase))


def _assertions(phrase: Phrase) -> Iterator[Assertion]:
    yield ("object", phrase.name)
    for attribute in phrase.attributes:
        yield ("attribute", phrase.name, attribute.kind, attribute.value)
    if phrase.count is not None:
        yield ("count", phrase.name, str(phrase.count), *sorted(attribute.value for attribute in phrase.attributes))
    if phrase.place is not None:
        yield ("place", phrase.name, phrase.place.name)
    if phrase.beside is not None:
        yield ("beside", phrase.name, phrase.beside.direction, phrase.beside.other)


def _mentions(text: str, lexicon: Lexicon) -> list[Mention]:
    """Without those that are an attribute of the next one: "an orange cup" names no orange."""
    mentions = lexicon.vocabulary.mentions(text)
    following = [*(mention.start for mention in mentions[1:]), -1][: len(mentions)]
    return [
        mention
        for mention, then in zip(mentions, following, strict=True)
        if mention.surface.lower() not in lexicon.attributes or then < 0 or text[mention.end : then].strip()
    ]


def _phrases(
    text: str, number: int, sentence: Sentence, mentions: Sequence[Mention], lexicon: Lexicon
) -> Iterator[Phrase]:
    floor, denied = sentence.start, sentence.text.endswith("?")
    spans = [(sentence.start + start, sentence.start + end) for start, end in denied_spans(sentence.text)]
    for mention in mentions:
        phrase = _phrase(text, number, floor, mention, lexicon)
        if any(start <= mention.start < end for start, end in spans):
            phrase = None
        # Of "no dogs or cats" both are denied; of "no dog, and a cat" one is.
        goes_on = denied and phrase is not None and phrase.determiner is None
        denied = sentence.text.endswith("?") or phrase is None or (goes_on and bool(_OR.match(text, floor)))
        floor = mention.end
        if phrase is not None and not denied:
            yield phrase


def _there(sentence: Sentence, phrases: Sequence[Phrase]) -> Iterator[Phrase]:
    """Without those of which the sentence says behind them that they are not there, listed with others or alone."""
    run: list[Phrase] = []
    for phrase in phrases:
        between = sentence.text[run[-1].end - sentence.start : phrase.start - sentence.start] if run else ""
        if run and not _TOGETHER.fullmatch(between):
            yield from run
            run = []
        run.append(phrase)
        start, end = run[0].start - sentence.start, phrase.end - sentence.start
        if is_denied_behind(sentence.text, start, end):
            run = []
    yield from run


def _phrase(text: str, number: int, floor: int, mention: Mention, lexicon: Lexicon) -> Phrase | None:
    """None for what is denied."""
    near = _BEFORE.search(text[floor : mention.start])
    begin = floor + near.start() if near else mention.start
    words = [
        (begin + match.start(1), begin + match.end(1), match[1].lower().replace("\u2019", "'"), bool(match[2]))
        for match in _WORD.finditer(text[begin : mention.start])
    ]
    between: list[tuple[int, int, str]] = []  # the words between the determiner and the noun, the nearest first
    determiner: tuple[int, int, str] | None = None
    before = ""
    while words:
        first, last, word, comma = words.pop()
        if word in _DETERMINERS or word.isdigit():
            determiner = (first, last, word)
            break
        # "a small, red boat", but not "in red, boats"
        if word in _STOP or (comma and not (between and _describes(word, lexicon))):
            before = word
            break
        between.append((first, last, word))
    if (determiner or (0, 0, before))[2] in _NO or (words and words[-1][2] in _NO):
        return None
    start = between[-1][0] if between else mention.start
    group = _GROUP.search(text[floor:start]) if determiner is None and before == "of" else None
    counted: Span | None = None
    count: int | None = None
    if determiner is not None:
        start, word = determiner[0], determiner[2]
        count = int(word) if word.isdigit() else _NUMBERS.get(word)
        if word in ("few", "many") and words and words[-1][2] in ("a", "the"):
            start = words[-1][0]
        if word in _ARTICLES and lexicon.articles_count and lexicon.plural(mention.surface) is not True:
            count = 1
    elif group is not None:
        start = floor + group.start()
        count = {"couple": 2, "pair": None if mention.surface.lower() in _BY_PAIR else 2}.get(group["what"].lower())
        determiner = (start, floor + group.start() + len(group[0].rstrip()), "some")
    else:  # what stands there may be a verb: only what surely describes the noun belongs to it
        belongs = list(itertools.takewhile(lambda piece: _describes(piece[2], lexicon), between))
        between, start = belongs, belongs[-1][0] if belongs else mention.start
    if determiner is not None:
        determiner = (start, determiner[1], determiner[2])
        counted = determiner[:2] if count is not None else None
    return Phrase(
        sentence=number,
        start=start,
        end=mention.end,
        noun=(mention.start, mention.end),
        name=mention.name,
        surface=mention.surface,
        determiner=determiner[:2] if determiner else None,
        count=count,
        counted=counted,
        new=determiner is None or determiner[2] not in _KNOWN,
        attributes=tuple(
            Attribute(first, last, *lexicon.attributes[word])
            for first, last, word in reversed(between)
            if word in lexicon.attributes
        ),
    )


def _describes(word: str, lexicon: Lexicon) -> bool:
    return word in lexicon.attributes or word in _ADJECTIVES


def _with_places(text: str, sentence: Sentence, phrases: list[Phrase], lexicon: Lexicon) -> list[Phrase]:
    """The phrases of a sentence with what is said of them outside of them."""
    fronts = list(_fronts(text, sentence, phrases, lexicon))
    taken = {span for _, place in fronts for span in range(*place.whole)}
    placed = []
    for at, phrase in enumerate(phrases):
        following = phrases[at + 1] if at + 1 < len(phrases) else None
        until = following.start if following else sentence.end
        front = next((place_before for first, place_before in fronts if at in first), None)
        place = front or _behind(text, phrase, until, taken, lexicon)
        beside = _beside(text, phrase, following)
        predicates = _predicates(text, phrase, until, lexicon)
        placed.append(replace(phrase, attributes=(*phrase.attributes, *predicates), place=place, beside=beside))
    return placed


def _fronts(
    text: str, sentence: Sentence, phrases: Sequence[Phrase], lexicon: Lexicon
) -> Iterator[tuple[range, Place]]:
    """Places before what is there, and the phrases each goes with: one, and those that are listed after it."""
    place = rf"{_PREPOSITION}\s+({lexicon.place_pattern})\b{_OF_IMAGE}(?!\s+of\b)"
    pattern = re.compile(rf"(?:^|(?<=[,;]\s)|(?<=\band\s))({place}){_VERB}$", re.IGNORECASE)
    for at, phrase in enumerate(phrases):
        since = phrases[at - 1].end if at else sentence.start
        front = pattern.search(text[since : phrase.start])
        if front is None:
            continue
        last = at
        while last + 1 < len(phrases) and JOINS.fullmatch(text, phrases[last].end, phrases[last + 1].start):
            last += 1
        yield range(at, last + 1), _place(text, since, front)


def _behind(text: str, phrase: Phrase, until: int, taken: set[int], lexicon: Lexicon) -> Place | None:
    """A place that follows the noun at once, or after words for standing there."""
    pattern = re.compile(
        rf"(?:\s+{_POSTURE})*(,?\s+{_PREPOSITION}\s+({lexicon.place_pattern})\b{_OF_IMAGE})(?!\s+of\b)", re.IGNORECASE
    )
    match = pattern.match(text[phrase.end : until])
    if match is None or phrase.end + match.start(2) in taken:
        return None
    return _place(text, phrase.end, match)


def _place(text: str, since: int, match: re.Match[str]) -> Place:
    """Of a match in ``text[since:]``: group 1 is all of it, group 2 the place."""
    start, end = since + match.start(2), since + match.end(2)
    return Place(start, end, " ".join(text[start:end].lower().split()), (since + match.start(1), since + match.end(1)))


def _beside(text: str, phrase: Phrase, following: Phrase | None) -> Beside | None:
    if following is None:
        return None
    between = text[phrase.end : following.start]
    for direction, words in _DIRECTIONS.items():
        match = re.fullmatch(rf"(?:\s+(?:{_POSTURE}|just|directly|right))*\s+({words})\s+", between, re.IGNORECASE)
        if match is not None:
            return Beside(phrase.end + match.start(1), phrase.end + match.end(1), direction, following.name)
    return None


def _predicates(text: str, phrase: Phrase, until: int, lexicon: Lexicon) -> Iterator[Attribute]:
    """What is said of the noun behind it: "is red", "are black and white"."""
    words = "|".join(sorted(map(re.escape, lexicon.attributes), key=len, reverse=True))
    match = re.compile(rf"{_LOOKS}({words})\b(?:\s*(?:,|,?\s+and)\s+({words})\b)?", re.IGNORECASE).match(
        text[phrase.end : until]
    )
    if match is not None:
        for first, last in (match.span(group) for group in (1, 2) if match[group]):
            word = match.string[first:last].lower()
            yield Attribute(phrase.end + first, phrase.end + last, *lexicon.attributes[word])
