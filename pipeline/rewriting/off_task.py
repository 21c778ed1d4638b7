"""Whether what a model wrote in the place of a text is a text like it, and not an answer that speaks about the task.

A writer that is too weak says things such as "Here is a rewritten version: ...", and the facts in it are right.
"""

from __future__ import annotations

import re
from collections import Counter

from reward.text import language

#: More than this many times the words of the original, or fewer than its inverse, is no other wording of it.
_TIMES = 2
#: So many words more are always allowed: short texts grow by their first words alone.
_MORE_WORDS = 6
#: What quotes, lists, headings, code and tables are written with. Apostrophes and brackets stand in plain sentences.
_MARKS = re.compile(
    r"[\"\u201c\u201d\u00ab\u00bb`>#*|{}\[\]=~\n?\uff1f]"
    # The number of an item, a label ("Output: "), and a sentence in brackets.
    r"|\A\(?\d{1,3}[.):]\s|\A\w[\w-]*(?: [\w-]+){0,3}:\s|\A\([^()]*\)\Z|\([A-Z][^()]*[.!]\)"
)
#: Words about a text, its making or its writer, in English.
_ABOUT = re.compile(
    r"\b(?:texts?|sentences?|phrases?|paragraphs?|wordings?|paraphras\w+|rephras\w+|re-?writ\w+|rewrote|reword\w*"
    r"|revis(?:e|ed|es|ing|ions?)|correct(?:ed|ions?)|edit(?:ed|s)?|instructions?|prompts?|request(?:ed|s)?"
    r"|translat\w+|summar\w+|json|original|versions?|descriptions?|here['\u2019]?s|i['\u2019](?:ll|ve|m|d)"
    r"|i (?:have|am)|note that|no (?:\w+ )?details?|language model|as an ai"
    r"|let me know|hope (?:this|that|it)|metaphors?)\b|^(?:sure|certainly|of course|okay)\b",
    re.IGNORECASE,
)


def off_task(made: str, original: str, shorter: bool = False, whole: str | None = None) -> str | None:
    """Why ``made`` is no text in the place of ``original``, or None. With ``shorter``, it may be as short as it likes.
    ``whole`` is the text that the original is a part of: its language is told by all of it.

    >>> off_task("One sees a dog.", "There is a dog.")
    >>> off_task("The text says that there is a dog.", "There is a dog.")
    "it speaks about the task: 'text'"
    >>> off_task("One sees a dog with a text.", "There is a dog with a text.")
    """
    marks = Counter(_MARKS.findall(made.strip())) - Counter(_MARKS.findall(original.strip()))
    if marks:
        return f"it is laid out in a way that the original is not: {min(marks)!r}"
    known = {word.lower() for word in _ABOUT.findall(original)}
    if about := [word for word in _ABOUT.findall(made) if word.lower() not in known]:
        return f"it speaks about the task: {about[0]!r}"
    if why := _foreign(made, whole or original):
        return why
    words, before = len(made.split()), len(original.split())
    if words > max(_TIMES * before, before + _MORE_WORDS) or (not shorter and _TIMES * words < before):
        return f"it has {words} words, the original {before}"
    return None


def _foreign(made: str, original: str) -> str | None:
    """Why a text is in another language, as far as that can be told."""
    if new := sorted(language.scripts(made).keys() - language.scripts(original).keys()):
        return f"it is in another script: {new[0]}"
    first, second = language.language(original), language.language(made)
    if first is not None and second is not None and first != second:
        return f"it is in another language: {second}"
    return None
