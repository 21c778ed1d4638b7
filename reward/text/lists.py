"""Where a sentence lists objects, and how to take some off the list so that the sentence still reads well."""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from reward.text.lexicon import Lexicon
from reward.text.noun_phrases import JOINS, Phrase, Span
from reward.text.types import Sentence

#: ``text[start:end]`` becomes ``new``.
Change = tuple[int, int, str]

_BE = {("is", True): "are", ("are", False): "is", ("was", True): "were", ("were", False): "was"}
_SEE = r"(?:can\s+(?:also\s+)?see|(?:also\s+)?sees?)"
_IMAGE = r"(?:the|this)\s+(?:image|picture|photo|photograph|scene)"
#: How a sentence begins that does nothing but list.
_OPENING = re.compile(
    rf"(?:in\s+{_IMAGE},?\s+)?(?:(?:in|on|at|to)\s+the\s+[\w\s-]+?,?\s+)?"
    rf"(?:there\s+(?P<there>is|are|was|were)(?:\s+also)?"
    rf"|(?:you|we|one)\s+{_SEE}"
    rf"|{_IMAGE}\s+(?:also\s+)?(?:shows|depicts|features|contains|includes)"
    rf"|(?<=\s)(?P<inverted>is|are|was|were))\s+",
    re.IGNORECASE,
)
_SEPARATOR = re.compile(r"(?:\s*,\s*and|\s*,|\s+and|\s*,?\s+as\s+well\s+as)\s+$", re.IGNORECASE)
#: What shows that more is said than what there is, so that items cannot be told apart safely.
_CLAUSE = re.compile(r"(?<!that )(?<!which )\b(?:is|are|was|were|has|have|between|but|while)\b", re.IGNORECASE)
_LINES = re.compile(r"[^\S\n]*\n(?:[^\S\n]*\n)*")
_THERE = re.compile(r"\bthere\s+(is|are|was|were)\s+(?:also\s+)?$", re.IGNORECASE)
_AFTER = re.compile(r"\s+(is|are|was|were)\b", re.IGNORECASE)
#: What says nothing of the last item of a list by standing behind it.
_FOLLOWS = re.compile(rf"\s*[.,;:!?)\]\"\u201d]|\s+in\s+{_IMAGE}\b", re.IGNORECASE)
_END = re.compile(r"[\s.!?\"'\u201d\u2019)\]*_]*$")
_PREPOSITION = re.compile(
    r",?\s+(?:with|without|near|by|beside|behind|on|in|at|under|above|below|over|against|around|along|"
    r"next\s+to|in\s+front\s+of|on\s+top\s+of|close\s+to|(?:to|on)\s+the\s+(?:left|right)(?:\s+side)?\s+of|"
    r"holding|carrying|wearing|riding|watching|eating)\s+$",
    re.IGNORECASE,
)

#: A sentence does not end with one of these: "A man is to the left of a dog."
_OPEN_VERB = re.compile(
    r"\b(?:is|are|was|were|be|been|being|has|have|had)(?:\s+(?:also|just|directly|right))?$", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Listing:
    """``items`` are parts of the text, ``members`` the phrases (by their number) of each.

    ``whole``: the sentence does nothing but list, so that nothing is left of it if no item is. ``before`` is a form of
    "to be" that agrees with the first item, ``after`` one that agrees with all. ``subject``: the list stands at the
    beginning and something is said of it. ``goes_on``: it does not, and something else follows than the end or a comma.
    """

    items: tuple[Span, ...]
    members: tuple[tuple[int, ...], ...]
    whole: bool = False
    before: Span | None = None
    after: Span | None = None
    subject: bool = False
    goes_on: bool = False


def listings(text: str, sentence: Sentence, phrases: Mapping[int, Phrase]) -> list[Listing]:
    """Of the phrases of a sentence: one if it only lists, otherwise one for every run of them that "," and "and" join,
    be it of one phrase."""
    if not phrases:
        return []
    numbers = sorted(phrases)
    end = sentence.start + len(_END.sub("", sentence.text))
    opening = _OPENING.fullmatch(text, sentence.start, phrases[numbers[0]].start)
    if opening is not None and not _CLAUSE.search(text, opening.end(), end):
        verb = "there" if opening["there"] else "inverted" if opening["inverted"] else None
        items, members = _items(text, [(number, phrases[number]) for number in numbers], end)
        return [Listing(items, members, whole=True, before=opening.span(verb) if verb else None)]
    runs: list[list[int]] = []
    for number in numbers:
        joined = runs and JOINS.fullmatch(text, phrases[runs[-1][-1]].end, phrases[number].start)
        runs[-1].append(number) if joined else runs.append([number])
    return [_run(text, sentence, run, phrases, end) for run in runs]


def without(
    text: str, listing: Listing, gone: Collection[int], many: Mapping[int, bool], before: Mapping[int, bool]
) -> Iterator[Change]:
    """The changes that take the items with these places off the list, at least one being left, and make verbs agree.

    ``many`` says of phrases whether they are plural now, ``before`` whether they were. Nobody need be gone.
    """
    items = listing.items
    left = [place for place in range(len(items)) if place not in gone]
    if left[0]:
        yield items[0][0], items[left[0]][0], ""
    for earlier, later in itertools.pairwise(left):
        separator = _separator(text, items, earlier, later, left)
        yield items[earlier][1], items[later][0], separator
    if left[-1] < len(items) - 1:
        yield items[left[-1]][1], items[-1][1], ""
    first = listing.members[left[0]][0]
    begins_otherwise = left[0] > 0 or len(left) < len(items) == 2 or many[first] != before[first]
    if listing.before is not None and begins_otherwise:
        yield from _agreeing(text, listing.before, many[first])
    changed = any(many[member] != before[member] for place in left for member in listing.members[place])
    if listing.after is not None and listing.goes_on:
        last = listing.members[-1][-1]  # "... there are two dogs, and a cat is on the right"
        if many[last] != before[last]:
            yield from _agreeing(text, listing.after, many[last])
    elif listing.after is not None and (len(left) < len(items) or changed):
        yield from _agreeing(text, listing.after, many[first] or len(left) > 1)


def agrees(listing: Listing, gone: Collection[int], many: Mapping[int, bool], before: Mapping[int, bool]) -> bool:
    """Whether the verb after a list still fits, other verbs than "to be" included, which no rule here can change.
    Behind a list within a sentence ("... near a car and a dog sleeps"), more may be said of its last item alone."""
    if gone and listing.goes_on:
        return False
    if not listing.subject or listing.after is not None:
        return True
    left = [members[0] for place, members in enumerate(listing.members) if place not in gone]
    was = len(listing.members) > 1 or before[listing.members[0][0]]
    return (len(left) > 1 or many[left[0]]) == was


def _agreeing(text: str, verb: Span, several: bool) -> Iterator[Change]:
    new = _BE.get((text[slice(*verb)].lower(), several))
    if new is not None:
        yield *verb, new


def tail(text: str, start: int, end: int, limit: int) -> Span | None:
    """All to be cut so that the noun phrase ``text[start:end]`` goes with its preposition, if it is the last before
    ``limit``: of "a man with a hat", " with a hat"."""
    preposition = _PREPOSITION.search(text[:start])
    if preposition is None or end != limit or _OPEN_VERB.search(text[: preposition.start()]):
        return None
    return preposition.start(), end


def end_of(text: str, sentence: Sentence) -> int:
    """Where a sentence ends without its full stop."""
    return sentence.start + len(_END.sub("", sentence.text))


def drop(text: str, sentences: Sequence[Sentence], gone: Collection[int]) -> Iterator[Change]:
    """The changes that leave these sentences out, with the white space or the line that goes with them."""
    lines: dict[int, list[int]] = {}
    for number, sentence in enumerate(sentences):
        lines.setdefault(text.rfind("\n", 0, sentence.start) + 1, []).append(number)
    spans = [span for start, numbers in lines.items() for span in _line_spans(text, start, numbers, sentences, gone)]
    at = 0
    for start, end in sorted(spans):
        if end > at:
            yield max(start, at), end, ""
            at = end


def _line_spans(
    text: str, start: int, numbers: Sequence[int], sentences: Sequence[Sentence], gone: Collection[int]
) -> Iterator[Span]:
    """Of one line, which begins at ``start``."""
    left = [number for number in numbers if number not in gone]
    if not left:
        end = sentences[numbers[-1]].end
        following = _LINES.match(text, end)
        # The last line goes with the break before it.
        yield (start, following.end()) if following else (len(text[:start].rstrip()), end)
    for number in numbers if left else ():
        if number in gone and number < left[-1]:
            yield sentences[number].start, sentences[number + 1].start
    if left and left[-1] < numbers[-1]:
        yield sentences[left[-1]].end, sentences[numbers[-1]].end


def plural(phrase: Phrase, lexicon: Lexicon) -> bool:
    """Whether a verb after the phrase is plural."""
    if phrase.count is not None:
        return phrase.count != 1
    return lexicon.plural(phrase.surface) is not False


def _items(
    text: str, phrases: Sequence[tuple[int, Phrase]], end: int
) -> tuple[tuple[Span, ...], tuple[tuple[int, ...], ...]]:
    starts, ends, members = [phrases[0][1].start], [], [[phrases[0][0]]]
    for (_, previous), (number, following) in itertools.pairwise(phrases):
        separator = _SEPARATOR.search(text[previous.end : following.start])
        if separator is None:
            members[-1].append(number)
            continue
        ends.append(previous.end + separator.start())
        starts.append(following.start)
        members.append([number])
    return tuple(zip(starts, [*ends, end], strict=True)), tuple(map(tuple, members))


def _run(text: str, sentence: Sentence, run: Sequence[int], phrases: Mapping[int, Phrase], end: int) -> Listing:
    last = phrases[run[-1]].end
    after = _AFTER.match(text, last)
    first = phrases[run[0]].start == sentence.start
    there = _THERE.search(text, sentence.start, phrases[run[0]].start)
    return Listing(
        items=tuple((phrases[number].start, phrases[number].end) for number in run),
        members=tuple((number,) for number in run),
        before=there.span(1) if there else None,
        after=after.span(1) if after else None,
        subject=first and last < end,
        goes_on=not first and last < end and _FOLLOWS.match(text, last) is None,
    )


def _separator(text: str, items: Sequence[Span], first: int, second: int, left: Sequence[int]) -> str:
    """Between two items that now follow each other."""
    between = text[items[first][1] : items[second][0]] if second == first + 1 else ", "
    final = text[items[-2][1] : items[-1][0]]
    if len(left) == len(items) or final.strip() == ",":
        return between
    if second != left[-1]:
        return ", " if between == final else between
    return re.sub(r"^\s*,", "", final) if len(left) == 2 else final
