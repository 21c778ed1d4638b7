"""Which option an answer picks, as the scripts of five places read it. None is what they cannot read.

Each rule gets the text and the options by letter, ``{"A": "a cat", "B": "a dog"}``, and gives a letter. It may be one
that is no option: the answer is then read, and wrong. Where a script asks another model what was meant, or draws an
option at random, there is None here: the same answers always have the same score.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

Options = Mapping[str, str]
Rule = Callable[[str, Options], str | None]
#: What VLMEvalKit calls an answer that picks none.
NONE = "Z"
_LETTERS = "ABCDE"
_REFUSALS = (
    "Sorry, I can't help with images of people yet.",
    "I can't process this file.",
    "I'm sorry, but without the image provided",
    "Cannot determine the answer",
)
_NO_ANSWER = "Failed to obtain answer via API"
_ANSWER_IS = re.compile(r"(?i)answer\s+is\s+\**([ABCD])")


def whole(text: str, options: Options) -> str | None:
    """The answer is the letter and nothing else, as LLaVA's script for SEED-Bench wants it.

    >>> [whole(text, {"A": "cat", "B": "dog"}) for text in ("A", "A.", "a", "C")]
    ['A', None, None, None]
    """
    return text if text in options else None


def first_character(text: str, options: Options) -> str | None:
    """The first character, whatever its case, as lmms-eval reads SEED-Bench.

    >>> [first_character(text, {"A": "cat", "B": "dog"}) for text in (" a cat", "Blue", "(A)", "The answer is B", "")]
    ['A', 'B', None, None, None]
    """
    letter = text.strip()[:1].upper()
    return letter if letter in options else None


def scienceqa_lmms_eval(text: str, options: Options) -> str | None:
    """The letter alone, whatever its case, or a capital with a full stop behind it at the beginning.

    >>> [scienceqa_lmms_eval(text, {"A": "cat"}) for text in ("a", "A. cat", "A.cat", "a.", "A) cat", "(A)", "A cat")]
    ['A', 'A', 'A', None, None, None, None]
    """
    answer = text.strip()
    if answer.upper() in options and len(answer) == 1:
        return answer.upper()
    return answer[0] if len(answer) >= 2 and answer[0].isupper() and answer[1] == "." else None


def scienceqa_llava(text: str, options: Options) -> str | None:
    """LLaVA's ``eval_science_qa.py``: the letter alone, "B. " at the very beginning, or behind "The answer is ".

    >>> texts = ("B ", "B. dog", " B. dog", "B.", "b", "The answer is B.", "the answer is B", "The answer is Blue")
    >>> [scienceqa_llava(text, {"A": "cat", "B": "dog"}) for text in texts]
    ['B', 'B', None, None, None, 'B', None, 'B']
    """
    line = text.replace("\n", ". ")
    letter = None
    if line.strip() in _LETTERS and len(line.strip()) == 1:
        letter = line.strip()
    elif line[:1] in _LETTERS and line[1:3] == ". ":
        letter = line[:1]
    else:
        match = re.search(r"The answer is ([A-E])\.", line) or re.search(r"The answer is ([A-E])", line)
        letter = None if match is None else match[1]
    return letter if letter in options else None


def mmmu(text: str, options: Options) -> str | None:
    """MMMU's own ``parse_multi_choice_response``, of which lmms-eval has a copy; it draws where this is None.

    "(B)" anywhere; else "B" with a space behind it, or with a full stop; else, in more than five words, the text of an
    option. Of several the one that stands last wins.

    >>> options = {"A": "a cat", "B": "a dog"}
    >>> [mmmu(text, options) for text in ("(A) or (B)", "B", "A cat", "b", "It must be A.", "I think it is a dog, yes")]
    ['B', 'B', 'A', None, 'A', 'B']
    """
    for character in ",.!?;:'":
        text = text.strip(character)
    text = f" {text} "
    for form, place in (("({})", "({})"), ("{} ", " {} "), ("{}.", " {} ")):
        letters = [letter for letter in options if form.format(letter) in text]
        if letters:
            return _last(letters, [text.rfind(place.format(letter)) for letter in letters])
    if len(text.split()) > 5:
        lower = text.lower()
        letters = [letter for letter, option in options.items() if option.lower() in lower]
        if letters:
            return _last(letters, [lower.rfind(options[letter].lower()) for letter in letters])
    return None


def _last(letters: Sequence[str], places: Sequence[int]) -> str:
    """The letter that stands last; of those at one place the first."""
    return letters[max(range(len(letters)), key=lambda at: (places[at], -at))]


def vlmevalkit(text: str, options: Options) -> str | None:
    """VLMEvalKit's ``can_infer``, which is MMBench's own: without a model that is asked what was meant.

    A letter by itself, punctuation aside, if it is the only one and one of the last four words; else what stands behind
    "answer is", whatever its case; else the text of an option, if only one occurs and the answer is not much longer
    than all of them together.

    >>> options = {"A": "cat", "B": "dog"}
    >>> [vlmevalkit(text, options) for text in ("(B)", "A or B", "b", "A dog", "The answer is a dog", "doggy")]
    ['B', None, None, 'A', 'A', 'B']
    """
    if _NO_ANSWER not in text:
        if any(refusal in text for refusal in _REFUSALS):
            return NONE
        words = re.sub(r"[.()\[\],:;!*#{}]", " ", text).split()
        letters = [letter for letter in options if letter in words]
        if len(letters) == 1 and words.index(letters[0]) > len(words) - 5:
            return letters[0]
        if not letters and NONE in words:
            return NONE
        match = _ANSWER_IS.search(text)
        if match is not None and match[1].upper() in options:
            return match[1].upper()
    if len(text.lower()) > 2 * sum(map(len, options.values())):
        return None
    return _only_text(text, options)


def mmbench_lmms_eval(text: str, options: Options) -> str | None:
    """An older form of VLMEvalKit's rule that lmms-eval has kept, without the model that it asks else.

    A letter by itself, if it is the only one (not "A" among more than three words); else one with punctuation around
    it; else the text of an option, if only one occurs.

    >>> options = {"A": "cat", "B": "dog"}
    >>> [mmbench_lmms_eval(text, options) for text in ("B", "(B).", "A or B", "A dog", "Is it A dog", "[B]")]
    ['B', 'B', None, 'A', 'B', None]
    """
    if _NO_ANSWER not in text:
        words = text.split()
        letters = [letter for letter in _LETTERS if letter in words]
        if len(letters) == 1 and not ("A" in words and len(words) > 3):
            return letters[0]
        for form in ("{}.", "{},", "{}:", "{})", "{}).", "({})", "({}).", ":{}", ":{},", ":{}.", ":{})", ":{})."):
            letters = [letter for letter in _LETTERS if form.format(letter) in words]
            if len(letters) == 1:
                return letters[0]
    return _only_text(text, {letter: option for letter, option in options.items() if letter in "ABCD"})


def _only_text(text: str, options: Options) -> str | None:
    """The one option whose text occurs, whatever its case."""
    lower = text.lower()
    letters = [letter for letter, option in options.items() if option.lower() in lower]
    return letters[0] if len(letters) == 1 else None
