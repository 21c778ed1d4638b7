"""What in a text is not true of its image, by the verdicts on its claims."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence

from reward.asking.claims import SPLITTING, phrases, statements
from reward.asking.protocol import Verdict
from reward.text.fact_findings import NO_VERDICT, whole
from reward.text.lexicon import Lexicon
from reward.text.sentences import split
from reward.text.types import Finding, Problem, Says, Sentence


def by_claims(
    text: str,
    candidate: int,
    verdicts: Iterable[Verdict],
    lexicon: Lexicon | None = None,
    low: float = 0.5,
    high: float = 0.5,
) -> tuple[Finding, ...] | Problem:
    """From what a model said of each claim of the text (``reward.asking.claims.ClaimScorer``).

    A claim with P(yes) below ``low`` is a hallucination, one of at least ``high`` is correct, what is between them and
    what has no verdict (``unread``) is unclear. Each stands at its words in the sentence that makes it, or at the whole
    sentence if the words are others. ``lexicon`` is the one whose vocabulary the claims were made with, if they were.

    Refuses (``unreadable`` or the engine's error) where the text could not be split into claims.
    """
    own = [one for one in verdicts if one.candidate == candidate]
    for one in own:
        if one.question == SPLITTING:
            kind, _, message = (one.error or "unreadable: the text could not be split").partition(": ")
            return Problem(kind, message)
    sentences = split(text)
    found: list[Finding] = []
    for one in own:
        for number in _homes(one.question, sentences, lexicon):
            start, end = _at(one.question, sentences[number])
            says: Says = "unclear"
            if one.error is None and one.p_yes is not None:
                says = "hallucination" if one.p_yes < low else "correct" if one.p_yes >= high else "unclear"
            known = one.p_yes is not None and not math.isnan(one.p_yes)
            reason = f"P(yes) = {one.p_yes:.3f} for {one.question!r}" if known else f"{NO_VERDICT}{one.error or 'nan'}"
            found.append(Finding(number, start, end, says, None, text[start:end], reason, "claims"))
    silent = set(range(len(sentences))) - {one.sentence for one in found}
    found += [whole(number, sentences[number], "no claim was made of it", "claims") for number in silent]
    return tuple(sorted(found, key=lambda one: (one.sentence, one.start, one.end)))


def _homes(claim: str, sentences: Sequence[Sentence], lexicon: Lexicon | None) -> list[int]:
    """The sentences that make a claim; if no rule finds it in any (a model worded it), the one with most of its words,
    the first of equals."""
    exact = [
        number
        for number, one in enumerate(sentences)
        if any(
            claim.casefold() == own.text.casefold()
            for own in (phrases(one.text, lexicon.vocabulary) if lexicon else statements(one.text))
        )
    ]
    if exact or not sentences:
        return exact
    words = _content(claim)
    shared = [len(words & _content(one.text)) for one in sentences]
    return [shared.index(max(shared))]


def _at(claim: str, sentence: Sentence) -> tuple[int, int]:
    """Where the claim's words stand, or all but the first, which may be an article that was "the"."""
    for words in (claim, claim.partition(" ")[2]):
        found = words and re.search(re.escape(words), sentence.text, re.IGNORECASE)
        if found:
            return sentence.start + found.start(), sentence.start + found.end()
    return sentence.start, sentence.end


_EMPTY = frozenset({"a", "an", "the", "is", "are", "there", "of", "in", "on", "and", "to", "it"})


def _content(text: str) -> frozenset[str]:
    return frozenset(word.rstrip("s") for word in re.findall(r"\w+", text.lower()) if word not in _EMPTY)
