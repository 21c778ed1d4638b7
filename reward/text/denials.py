"""Where a sentence denies that something is there: "The image does not contain any dogs, cats or birds."

What is denied is a list of nouns without articles, behind words that deny: "no", "without", a verb that is denied
("does not show", "can't see"), or words such as "free of". An article ends it, but for those behind "any", "or" and the
verb: "no dog, and a cat" denies the dog alone, and "does not show the dog's tail" no dog.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

#: Without any of it nothing is denied, or asked. Read by Arrow, too.
DENIES = (
    "\\b(?:no|not|without|neither|nor|never|cannot|lack|lacks|lacked|lacking|absence|instead|rather|free|devoid|void|empty"
    "|absent)\\b|n['\u2019]t\\b|\\?"
)

#: No noun phrase of a list goes across these.
_ENDS = (
    "a|an|the|this|that|these|those|his|her|its|their|my|your|our|one|two|three|four|five|six|seven|eight|nine|ten"
    "|some|any|several|many|few|another|each|every|both|all|no|not|only|just|merely|and|or|nor|but|of|with|in|on|at|by|to|from"
    "|near|under|over|above|below|behind|beside|between|next|is|are|was|were|be|been|being|has|have|had|can|could|will"
    "|would|which|who|whose|while|because|since|although|though|as|than|then|so|there|against|into|onto|except|if"
    "|shows?|appears?|seems?|\\d+"
)
_WORD = rf"(?!(?:{_ENDS})\b)[\w'\u2019-]+"
_NOUN = rf"{_WORD}(?:\s+{_WORD}){{0,3}}"
_SHORT = rf"(?:any\s+)?{_WORD}(?:\s+{_WORD})?"
_OR = rf"(?:\s*,?\s+(?:or|nor)\s+(?:even\s+)?(?:(?:an?|any)\s+)?{_NOUN})"
#: What stands between commas is part of the list only if that ends with "or".
_LIST = rf"(?:(?:an?|any)\s+)?(?P<nouns>{_NOUN}(?:(?:\s*,\s*{_SHORT}){{0,20}}{_OR})*)"
_ONE_OR_OTHER = rf"(?:(?:an?|any)\s+)?(?P<nouns>{_NOUN}{_OR}*)"
_NOT = r"(?:n['\u2019]t|\bnot|\bcannot|\bnever)"
#: What is denied with its object. "Not only", "not just" and "not far from" deny nothing.
_VERBS = (
    "be|show(?:ing|n)?|contain(?:ing)?|includ(?:e|ing)|depict(?:ing)?|featur(?:e|ing)|hav(?:e|ing)|see|seeing|display(?:ing)?"
    "|present|portray(?:ing)?|reveal|wear(?:ing)?|hold(?:ing)?|carry(?:ing)?|rid(?:e|ing)|us(?:e|ing)|identify|detect"
    "|find|spot|notice|observe"
)
_DENIED_VERB = rf"{_NOT}\s+(?:(?:actually|clearly|currently|really|also|even|seem|appear)\s+)*(?:to\s+)?(?:{_VERBS})\s+"
_SIGN_OF = r"\bno\s+(?:\w+\s+)?(?:signs?|traces?|evidence|hints?|indications?|presence)\s+of\s+"
_WITHOUT = r"\bwithout\s+|\b(?:free|devoid|void|empty|absence|lack|instead)\s+of\s+|\brather\s+than\s+"
_LACKS = r"\black(?:s|ed|ing)?\s+"
_LISTED = re.compile(rf"(?:{_DENIED_VERB}|{_SIGN_OF}|\bno\s+|{_LACKS}){_LIST}", re.IGNORECASE)
_CHOSEN = re.compile(rf"(?:{_WITHOUT}){_ONE_OR_OTHER}", re.IGNORECASE)

_IMAGE = r"(?:the|this)\s+(?:image|picture|photo|photograph|scene|frame|view)"
_HERE = (
    r"(?:\s+(?:(?:(?:with)?in|from|on)\s+(?:the|this)|at\s+all|here|anywhere|and|but|or)\b|\s*(?:[.,;:!)\"\u201d]|$))"
)
#: Said behind a noun: "Dogs are not visible."
_NOT_THERE = re.compile(
    rf"\s+(?:(?:is|are|was|were)(?:n['\u2019]t|\s+not)|cannot\s+be|can\s+not\s+be|can['\u2019]t\s+be)\s+"
    rf"(?:(?:actually|currently|anywhere|directly)\s+)?"
    rf"(?:(?:visible|present|there|shown|seen|depicted|pictured|included){_HERE}|(?:to\s+be\s+seen\b|in\s+{_IMAGE}\b))"
    rf"|\s+(?:is|are|was|were)\s+absent\b",
    re.IGNORECASE,
)
#: What is said there is said of these nouns, and not of "the face of the dog".
_CLAUSE_BEGINS = re.compile(r"(?:^|[,;:(]\s*|\b(?:but|while|although|though|whereas|because|since)\s+)$", re.IGNORECASE)


def denied_spans(sentence: str) -> Iterator[tuple[int, int]]:
    """The parts of a sentence whose nouns it denies.

    >>> text = "The street is free of cars or trucks, and there are no people, dogs, or birds on it, but a boat."
    >>> [text[start:end] for start, end in denied_spans(text)]
    ['people, dogs, or birds', 'cars or trucks']
    """
    for pattern in (_LISTED, _CHOSEN):
        for match in pattern.finditer(sentence):
            yield match.span("nouns")


def is_denied_behind(sentence: str, start: int, end: int) -> bool:
    """Whether the sentence says that nouns with which a clause of it begins, ``sentence[start:end]``, are not there.

    >>> is_denied_behind("Dogs are not visible in the image.", 0, 4), is_denied_behind("A dog is not here yet.", 0, 5)
    (True, False)
    """
    return _NOT_THERE.match(sentence, end) is not None and _CLAUSE_BEGINS.search(sentence[:start]) is not None
