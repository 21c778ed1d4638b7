"""What in a text is not true of its image, by facts; what findings are, whoever made them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import get_args

from reward.text.known import Known, Thing, lies
from reward.text.lexicon import Lexicon
from reward.text.noun_phrases import Phrase, read
from reward.text.sentences import split
from reward.text.types import KINDS, Facts, Finding, Kind, Says, Sentence

#: How the reason of a finding begins that is ``unclear`` because nobody could say: there is no verdict on a claim.
NO_VERDICT = "no verdict: "
#: (verdict, kind, start, end, reason)
ClaimVerdict = tuple[Says, Kind, int, int, str]


def by_facts(text: str, facts: Facts | None, lexicon: Lexicon, complete: bool = True) -> tuple[Finding, ...]:
    """One finding for every claim, in the order of the text; one of no kind, unclear, for a sentence without claims.

    Each mention is judged on its own, so that naming a thing twice is no hallucination. Of an object that is not there
    nothing else is judged. What facts say nothing about is unclear: attributes of a kind that is not known of every
    thing of that name, or that may be another word for what is ("silver" for gray), counts without a number, places
    without boxes. With a place, "a cup" says that there is one in that place, and "two cups" that two of them are.

    Without ``facts.objects``, the phrases of regions say what there is (``reward.text.known``), and counts are
    bounded: each region may be a thing of its own, and overlapping ones may be the same. A number between these
    bounds or below them is unclear. ``complete``: the regions name everything; otherwise an object that none of them
    names is unclear.

    >>> from pipeline.scenes.scene_words import scenes
    >>> facts = {"objects": [{"name": "sun", "count": 1, "attributes": ["red"]}]}
    >>> [(one.verdict, one.kind, one.words) for one in by_facts("A blue sun and a cup.", facts, scenes())]
    ... # doctest: +NORMALIZE_WHITESPACE
    [('correct', 'object', 'A blue sun'), ('correct', 'count', 'A'), ('hallucination', 'attribute', 'blue'),
     ('hallucination', 'object', 'a cup')]
    """
    known = Known.of(facts, lexicon, complete)
    findings = []
    phrases = read(text, lexicon)
    for number, sentence in enumerate(split(text)):
        of_sentence = [phrase for phrase in phrases if phrase.sentence == number]
        verdicts = [verdict for phrase in of_sentence for verdict in _claim_verdicts(phrase, known, lexicon)]
        if not verdicts:
            findings.append(whole(number, sentence, "nothing in it can be looked up", "facts"))
        for verdict, kind, start, end, reason in verdicts:
            findings.append(Finding(number, start, end, verdict, kind, text[start:end], reason))
    return tuple(sorted(findings, key=_place_in_text))


def _place_in_text(finding: Finding) -> tuple[int, int, bool, int]:
    return finding.sentence, finding.start, finding.kind != "object", finding.end


def hallucinations(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(finding for finding in findings if finding.verdict == "hallucination")


def without_verdict(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Those that stand for a claim on which there is no verdict: of what they are about, nothing is known."""
    return tuple(finding for finding in findings if finding.by == "claims" and finding.reason.startswith(NO_VERDICT))


def sentence_verdicts(findings: Iterable[Finding]) -> dict[int, Says]:
    """A verdict for each sentence: hallucination if one of its findings is, else unclear if there is no verdict on one
    of its claims, else correct if one is, else unclear."""
    every = tuple(findings)
    verdicts: dict[int, Says] = {}
    for finding in every:
        before = verdicts.get(finding.sentence, "unclear")
        verdicts[finding.sentence] = min(before, finding.verdict, key=("hallucination", "correct", "unclear").index)
    for finding in without_verdict(every):
        if verdicts[finding.sentence] == "correct":
            verdicts[finding.sentence] = "unclear"
    return verdicts


def at(
    text: str, start: int, end: int, verdict: Says, reason: str = "", kind: Kind | None = None, by: str = ""
) -> Finding:
    """What is thought of characters ``[start, end)`` of a text, which lie in one of its sentences.

    >>> found = at("A red sun. A cup.", 13, 16, "hallucination", "no cup is there", "object")
    >>> found.sentence, found.words
    (1, 'cup')

    Raises:
        ValueError: they do not, or there is no such verdict or kind.
    """
    if verdict not in get_args(Says) or kind not in (None, *KINDS):
        known = f"{', '.join(get_args(Says))}, of the kind None or {', '.join(KINDS)}"
        raise ValueError(f"a finding is {known}; not {verdict!r} of the kind {kind!r}")
    for number, sentence in enumerate(split(text)):
        if sentence.start <= start < end <= sentence.end:
            return Finding(number, start, end, verdict, kind, text[start:end], str(reason), by)
    raise ValueError(f"characters {start} to {end} do not lie in a sentence of the text")


def whole(number: int, sentence: Sentence, reason: str, by: str) -> Finding:
    """A sentence in which nothing was judged."""
    return Finding(number, sentence.start, sentence.end, "unclear", None, sentence.text, reason, by)


def _claim_verdicts(phrase: Phrase, known: Known, lexicon: Lexicon) -> Iterator[ClaimVerdict]:
    thing = known.things.get(phrase.name)
    if thing is None:
        says: Says = "hallucination" if known.closed else "unclear"
        reason = f"{phrase.name} is not there" if known.closed else f"nothing is known of any {phrase.name}"
        yield says, "object", phrase.start, phrase.end, reason
        return
    yield "correct", "object", phrase.start, phrase.end, f"{phrase.name} is there"
    for attribute in phrase.attributes:
        says, reason = _attribute(attribute.kind, attribute.value, thing, lexicon)
        yield says, "attribute", attribute.start, attribute.end, reason
    placed = _place(phrase, thing, lexicon)
    if phrase.count is not None and phrase.counted is not None:
        here = placed[2] if placed and placed[0] == "correct" else None
        says, reason = _count(phrase, thing, here)
        yield says, "count", *phrase.counted, reason
    if placed and phrase.place is not None:
        yield placed[0], "relation", phrase.place.start, phrase.place.end, placed[1]
    if phrase.beside is not None and (other := known.things.get(phrase.beside.other)) is not None:
        so = lies(thing, phrase.beside.direction, other)
        says = "unclear" if so is None else "correct" if so else "hallucination"
        reason = "they are not clearly apart, or have no boxes" if so is None else "by the centres of the boxes"
        yield says, "relation", phrase.beside.start, phrase.beside.end, reason


def _attribute(kind: str, value: str, thing: Thing, lexicon: Lexicon) -> tuple[Says, str]:
    values = thing.values(kind)
    there = f"{thing.name}: {', '.join(sorted(values))}" if values else f"no {kind} of {thing.name} is known"
    if value in values:
        return "correct", there
    if lexicon.alike(value, values):
        return "unclear", f"{there}; {value} may be another word for it"
    return ("hallucination", there) if thing.tells(kind) else ("unclear", there)


def _count(phrase: Phrase, thing: Thing, here: int | None) -> tuple[Says, str]:
    """``here``: how many are in the place that the phrase rightly names."""
    count = phrase.count or 0
    if count == here or count in thing.counts(attribute.value for attribute in phrase.attributes):
        return "correct", f"{thing.name}: {count}"
    if thing.count is not None:
        return "hallucination", f"{thing.name}: {thing.count}"
    if thing.most is not None and count > thing.most:
        return "hallucination", f"{thing.name}: at most {thing.most}"
    if count == thing.least == thing.most:
        return "correct", f"{thing.name}: {count} regions apart from each other"
    return "unclear", f"it is not known how many of {thing.name} there are"


def _place(phrase: Phrase, thing: Thing, lexicon: Lexicon) -> tuple[Says, str, int] | None:
    """With the number of those that are in the place; None if the phrase names no place."""
    if phrase.place is None:
        return None
    if not thing.boxes:
        return "unclear", f"it is not known where {thing.name} is", 0
    inside, doubtful = thing.inside(lexicon.places[phrase.place.name][1], lexicon.margin)
    wanted = phrase.count or (2 if lexicon.plural(phrase.surface) else 1)
    unseen = max(0, (thing.count or 0) - len(thing.boxes))
    reason = f"{inside} of {max(len(thing.boxes), thing.count or 0)} of {thing.name} in the {phrase.place.name}"
    if inside >= wanted:
        return "correct", reason, inside
    return ("unclear" if inside + doubtful + unseen >= wanted else "hallucination"), reason, inside
