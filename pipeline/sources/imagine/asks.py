"""Whether what a model wrote asks anything about an image.

A writer that is too weak answers instead of asking, describes, or speaks with whoever gave it the task. As in
``leading``, the rules look at words, not at grammar, and err on the side of flagging; where the text is not English,
nothing but its own question mark is known, and it is let through.
"""

from __future__ import annotations

import re


def _set(*lines: str) -> frozenset[str]:
    return frozenset(" ".join(lines).split())


_MARKS = ("?", "\uff1f", "\u061f", "\u037e")
_WORD = re.compile(r"[a-z]+(?:['\u2019][a-z]+)?")
#: Only English has them all; without any of them a text is not taken for English.
_ENGLISH = _set("the is are of to you this that it in and")
_POLITE = _set("please kindly briefly now then first next finally also")
#: Read off the instructions of LLaVA-Instruct, ALLaVA and the like: how requests about an image begin.
_REQUESTS = _set(
    "add analyse analyze answer assess caption categorise categorize characterise characterize choose classify",
    "comment compare complete compose consider convert count create decide define depict describe detail detect",
    "determine differentiate discuss draft draw elaborate enumerate estimate evaluate examine explain extract",
    "find focus generate give guess highlight identify illustrate imagine infer inspect interpret judge label",
    "list locate look make mark measure mention name narrate note observe offer outline paint pick pinpoint point",
    "predict present propose provide rank rate read recognise recognize recommend record recount reflect relate",
    "report say select sketch share show sort specify spot state study suggest summarise summarize take talk tell",
    "think transcribe translate use verify walk write zoom",
)
#: The one who gave the task, and what there is to do.
_ABOUT = re.compile(
    r"\b(?:the users?(?:['\u2019]s)?|a user|i['\u2019](?:ll|ve|m|d)|i (?:am|have|can|will|would|need)|help you|assist"
    r"|(?:the|your|this|two) (?:questions?|requests?|descriptions?|instructions?)|the answers?"
    r"|would you like|ask (?:a|the|me)|for you|your image|welcome)\b",
    re.IGNORECASE,
)


def no_question(text: str) -> str | None:
    """Why the text asks nothing about an image; None if it is a question or a request.

    >>> no_question("What is left of the sun?"), no_question("Please count the boats.")
    (None, None)
    >>> no_question("The image shows a red sun.")
    "neither asks nor requests: it begins with 'the'"
    >>> no_question("Why is the user asking?")
    "speaks about its task: 'the user'"
    """
    if about := _ABOUT.search(text):
        return f"speaks about its task: {about[0].lower()!r}"
    if text.rstrip(" \"'\u201d").endswith(_MARKS):
        return None
    words = _WORD.findall(text.lower())
    begins = next((word for word in words if word not in _POLITE), "")
    if begins in _REQUESTS or not _ENGLISH & set(words):
        return None
    return f"neither asks nor requests: it begins with {begins!r}"
