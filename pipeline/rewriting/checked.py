"""How right a detector is: its verdict on every sentence, held against exact facts where there are any.

A judge errs. What it misses stays in corrected texts, and what it makes up is taken out of sound ones; so its error is
counted wherever the facts can tell, and shown.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from reward.text.fact_findings import by_facts, hallucinations, sentence_verdicts, without_verdict
from reward.text.lexicon import Lexicon
from reward.text.types import Facts, Finding, Problem, Says

#: Kinds of ``Problem`` with which a detector has answered and said nothing. Any other is an engine's, and passes.
UNREADABLE = frozenset({"unreadable", "cut_off"})


class Checked(NamedTuple):
    """Of the sentence with this number the detector ``says`` one thing, None where its answer, or that on a claim of an
    otherwise faultless sentence, could not be read, and ``true`` is what the facts say."""

    sentence: int
    says: Says | None
    true: Says


class Rates(NamedTuple):
    """Of the sentences that are flagged, the share that is wrong (``precision``); of those that are wrong, the share
    that is flagged (``recall``); of all, the share on which the detector errs (``error``). ``unreadable`` is a share of
    texts. None where there is nothing to divide by; ``sentences`` is how many count."""

    precision: float | None
    recall: float | None
    error: float | None
    unreadable: float | None
    sentences: int


def exact(text: str, facts: Facts | None, lexicon: Lexicon) -> dict[int, Says]:
    """What the facts say of each sentence: wrong if anything in it is, else correct if every claim in it is.

    >>> from pipeline.scenes.scene_words import scenes
    >>> facts = {"objects": [{"name": "sun", "count": 1, "attributes": ["red"]}]}
    >>> exact("A red sun. A blue sun. In the centre is a red sun. How nice!", facts, scenes())
    {0: 'correct', 1: 'hallucination', 2: 'unclear', 3: 'unclear'}
    """
    verdicts: dict[int, Says] = {}
    for finding in by_facts(text, facts, lexicon):
        before = verdicts.get(finding.sentence, "correct")
        verdicts[finding.sentence] = min(before, finding.verdict, key=("hallucination", "unclear", "correct").index)
    return verdicts


def check(
    text: str, findings: Iterable[Finding] | Problem, facts: Facts | None, lexicon: Lexicon
) -> tuple[Checked, ...]:
    """Every sentence of a text that a detector was given, by its findings or by why there are none.

    Nothing where nothing exact is known: without ``facts.objects``, and where an engine failed.

    >>> from pipeline.scenes.scene_words import scenes
    >>> facts = {"objects": [{"name": "sun", "count": 1, "attributes": ["red"]}]}
    >>> check("A red sun. A cup.", Problem("unreadable", "no verdict"), facts, scenes())[1]
    Checked(sentence=1, says=None, true='hallucination')
    """
    if not (facts or {}).get("objects") or (isinstance(findings, Problem) and findings.kind not in UNREADABLE):
        return ()
    says: Mapping[int, Says] = {}
    if not isinstance(findings, Problem):
        read = tuple(findings)
        silent = {finding.sentence for finding in without_verdict(read)} - {
            finding.sentence for finding in hallucinations(read)
        }
        says = {number: verdict for number, verdict in sentence_verdicts(read).items() if number not in silent}
    return tuple(Checked(number, says.get(number), true) for number, true in exact(text, facts, lexicon).items())


def tally(texts: Iterable[Sequence[Checked]]) -> Counter[str]:
    """Counts over texts, each with its sentences; they add up over parts of the data.

    =====================  ===========================================================================
    true_positives         sentences that are flagged and wrong
    false_positives        flagged, and nothing is wrong
    false_negatives        not flagged and wrong: called correct, or unclear
    true_negatives         not flagged, and nothing is wrong
    undecided_sentences    the facts do not decide; they count nowhere else
    unreadable_sentences   there is no verdict on one of their claims, and none is wrong; nowhere else
    checked_texts          texts with an answer
    unreadable_texts       texts whose answer could not be read; their sentences count nowhere
    =====================  ===========================================================================
    """
    counts: Counter[str] = Counter()
    for text in texts:
        if not text:
            continue
        read = any(sentence.says is not None for sentence in text)
        counts["checked_texts" if read else "unreadable_texts"] += 1
        for sentence in text if read else ():
            counts[_cell(sentence)] += 1
    return counts


def rates(counts: Mapping[str, int]) -> Rates | None:
    """Of a ``tally``, or of the ``extras`` of a stage that has one in them; None if no text was checked.

    >>> found = rates({"true_positives": 8, "false_positives": 2, "true_negatives": 10, "checked_texts": 9})
    >>> found.precision, found.recall, found.error, found.unreadable
    (0.8, 1.0, 0.1, 0.0)
    """
    texts, unread = counts.get("checked_texts", 0), counts.get("unreadable_texts", 0)
    if texts + unread == 0:
        return None
    hit, made_up, missed, passed = (
        counts.get(name, 0) for name in ("true_positives", "false_positives", "false_negatives", "true_negatives")
    )
    total = hit + made_up + missed + passed
    return Rates(
        precision=_share(hit, hit + made_up),
        recall=_share(hit, hit + missed),
        error=_share(made_up + missed, total),
        unreadable=_share(unread, texts + unread),
        sentences=total,
    )


def interval(share: float, of: int, z: float = 1.96) -> tuple[float, float]:
    """Where a rate lies of which this share of ``of`` independent draws came about; 95 % with z = 1.96.

    Wilson's score interval (1927), which also holds where the share is 0 or 1.

    >>> [round(end, 3) for end in interval(0.1, 100)]
    [0.055, 0.174]
    """
    centre = share + z * z / (2 * of)
    half = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    low, high = ((centre + sign * half) / (1 + z * z / of) for sign in (-1, 1))
    # At its ends the interval is exact; the formula rounds.
    return (low if share > 0 else 0.0), (high if share < 1 else 1.0)


def _cell(sentence: Checked) -> str:
    if sentence.says is None:
        return "unreadable_sentences"
    if sentence.true == "unclear":
        return "undecided_sentences"
    if sentence.says == "hallucination":
        return "true_positives" if sentence.true == "hallucination" else "false_positives"
    return "false_negatives" if sentence.true == "hallucination" else "true_negatives"


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
