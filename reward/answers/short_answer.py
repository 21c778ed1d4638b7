"""The short answer in a sentence that says nothing else: what stands behind "It is", "The answer is", "There are"."""

from __future__ import annotations

import re

from reward.text.same_text import spelling, without_markup

_ANSWER = (
    r"(?:(?:so|thus|therefore|hence),? )?(?:the )?(?:(?:correct|right|final|short|best) )?"
    r"(?:answer|option|choice)(?: (?:to (?:the|this|your) question|here))?(?: (?:is|would be)(?: ?:)?| ?[:=])"
)
_THERE = r"there(?:'s| is| are| was| were)|(?:i|we|you)(?: can)? see"
_IT = (
    r"(?:it|this|that|he|she|they|these|those)(?:'s|'re| is| are| was| were)|"
    r"(?:the )?(?:number|total|count|colour|color|name|sum|result)(?: of [^\W\d_]+(?: [^\W\d_]+)?)? (?:is|are)"
)
_LEAD = re.compile(
    rf"^(?:(?:sure|ok|okay|well)[,.!:]? )?(?:(?:i (?:think|believe)|i(?: would|'d) say)(?: that)? )?"
    rf"(?:{_ANSWER}|{_THERE}|{_IT})? ?(?:option |choice |letter )?"
)
_ARTICLE = re.compile(r"^(?:a|an|the|some) (?=\S)")
#: 5! and n! may be more than 5 and n with a shout.
_END = re.compile(r"(?:[.?,;:\u3002]|(?<!\d)(?<!\b[a-z])!)+$")
_PLACE = re.compile(
    r" (?:(?:is|are) )?(?:(?:(?:shown|visible|present) )?in (?:the|this) (?:image|picture|photo|photograph|scene)|"
    r"shown|visible|pictured|present|here|there|in total|altogether)$"
)
#: A sentence ends where the next one begins with a capital, a digit or a quote.
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[\"'(*]*[A-Z0-9])|\s*\n\s*")
_MOST_SENTENCES = 3


def sentences(text: str) -> list[str]:
    """The sentences of a text of at most three of them; of a longer one none."""
    parts = [part for part in _SENTENCE.split(text.strip()) if part.strip()]
    return parts if len(parts) <= _MOST_SENTENCES else []


def short_answer(sentence: str) -> str:
    """What is left without the words that lead to an answer, its article, and where in the image it is. Case folded.

    >>> list(map(short_answer, ("There are three dogs.", "It's a cat", "The answer is: **B**.", "A cat in the image.")))
    ['three dogs', 'cat', 'b', 'cat']
    """
    text = " ".join(without_markup(spelling(sentence).replace("\u2019", "'")).split())
    for pattern in (_LEAD, _END, _ARTICLE, _PLACE):
        text = pattern.sub("", text).strip()
    return text
