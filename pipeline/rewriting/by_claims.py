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
    of_text = [verdict for verdict in verdicts if verdict.candidate == candidate]
    for verdict in of_text:
        if verdict.question == SPLITTING:
            kind, _, message = (verdict.error or "unreadable: the text could not be split").partition(": ")
            return Problem(kind, message)
    sentences = split(text)
    findings: list[Finding] = []
    for verdict in of_text:
        for number in _homes(verdict.question, sentences, lexicon):
            start, end = _at(verdict.question, sentences[number])
            says: Says = "unclear"
            p_yes = verdict.p_yes
            if verdict.error is None and p_yes is not None:
                says = "hallucination" if p_yes < low else "correct" if p_yes >= high else "unclear"
            reason = f"{NO_VERDICT}{verdict.error or 'nan'}"
            if p_yes is not None and not math.isnan(p_yes):
                reason = f"P(yes) = {p_yes:.3f} for {verdict.question!r}"
            findings.append(Finding(number, start, end, says, None, text[start:end], reason, "claims"))
    silent = set(range(len(sentences))) - {finding.sentence for finding in findings}
    findings += [whole(number, sentences[number], "no claim was made of it", "claims") for number in silent]
    return tuple(sorted(findings, key=lambda finding: (finding.sentence, finding.start, finding.end)))


def _homes(claim: str, sentences: Sequence[Sentence], lexicon: Lexicon | None) -> list[int]:
    """The sentences that make a claim; if no rule finds it in any (a model worded it), the one with most of its words,
    the first of equals."""
    exact = [
        number
        for number, sentence in enumerate(sentences)
        if any(
            claim.casefold() == phrase.text.casefold()
            for phrase in (phrases(sentence.text, lexicon.vocabulary) if lexicon else statements(sentence.text))
        )
    ]
    if exact or not sentences:
        return exact
    words = _content(claim)
    shared = [len(words & _content(sentence.text)) for sentence in sentences]
    return [shared.index(max(shared))]


def _at(claim: str, sentence: Sentence) -> tuple[int, int]:
    """Where the claim's words stand, or all but the first, which may be an article that was "the"."""
    for words in (claim, claim.partition(" ")[2]):
        match = words and re.search(re.escape(words), sentence.text, re.IGNORECASE)
        if match:
            return sentence.start + match.start(), sentence.start + match.end()
    return sentence.start, sentence.end


_EMPTY = frozenset({"a", "an", "the", "is", "are", "there", "of", "in", "on", "and", "to", "it"})


def _content(text: str) -> frozenset[str]:
    return frozenset(word.rstrip("s") for word in re.findall(r"\w+", text.lower()) if word not in _EMPTY)
