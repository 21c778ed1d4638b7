"""What is wrong with a text whatever it says: gates that a text passes before it may be compared with others.

Pure functions of the text, how it ended and what was asked. Each gate has a name, and a text that is stopped gets the
name of the first that stops it. A gate would rather let a bad text pass than stop a good one: a score can still tell
the first, and nothing brings the second back.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Sequence

from reward.text import language
from reward.text.language import NOTHING, AnswerLanguage
from reward.text.reasoning import has_reasoning
from reward.text.refusals import refuses
from reward.text.same_text import UNSEEN, blank

#: In the order in which they are looked at.
GATES = (
    "empty",
    "too_short",
    "leaked_template",
    "repetition",
    "refusal",
    "wrong_script",
    "wrong_language",
    "cut_off",
)
#: A phrase of at most so many words may follow itself ``max_repeated`` times whatever surrounds it; a longer one is
#: looked for as well, and so is a sentence that comes again and again.
LONGEST_PHRASE = 4
#: In scripts without spaces a loop of up to ``LONGEST_PHRASE`` characters is one only from this length on.
_LEAST_RUN = 12
#: A word of this many letters may be one syllable over and over.
LONG_WORD = 16


def stopping_gate(
    text: str | None,
    finish_reason: str | None = None,
    wanted: AnswerLanguage = NOTHING,
    *,
    min_words: int = 1,
    max_repeated: int = 2,
    skip: Collection[str] = (),
) -> str | None:
    """The name of the first of ``GATES`` that stops the text; None for a text that passes all but those in ``skip``.

    - ``empty``: no word in it, or none that can be seen. ``too_short``: fewer than ``min_words``.
    - ``leaked_template``: a token or turn of a chat template (``<|im_end|>``, ``[INST]``, ``ASSISTANT:``).
    - ``repetition``: a phrase follows itself more than ``max_repeated`` times, or most sentences are copies.
    - ``refusal``: it begins by declining, or by missing an image.
    - ``wrong_script``, ``wrong_language``: not those of the prompt (``reward.text.language``).
    - ``cut_off``: the model had to stop (``finish_reason`` "length"), or a long text ends in the middle of a clause.

    >>> stopping_gate("A dog."), stopping_gate("..."), stopping_gate("A dog, a dog, a dog"), stopping_gate("A dog.</s>")
    (None, 'empty', 'repetition', 'leaked_template')
    """
    answer = text or ""
    normal = normal_text(answer)
    words = normal.split()
    if not words or blank(answer):
        return "empty" if "empty" not in skip else None
    if len(words) < min_words and "too_short" not in skip:
        return "too_short"
    if "leaked_template" not in skip and leaks(answer):
        return "leaked_template"
    if "repetition" not in skip and (repeats(answer) > max_repeated or loops(answer, max_repeated)):
        return "repetition"
    if "refusal" not in skip and refuses(answer):
        return "refusal"
    if "wrong_script" not in skip and language.foreign_script(answer, wanted):
        return "wrong_script"
    if "wrong_language" not in skip and language.foreign_language(answer, wanted):
        return "wrong_language"
    if "cut_off" not in skip and (finish_reason == "length" or breaks_off(answer)):
        return "cut_off"
    return None


def normal_text(text: str) -> str:
    """The words of a text, to be counted: case folded, without punctuation and what cannot be seen. Texts equal in this
    way may still be different answers (``reward.text.same_text``).

    >>> normal_text(" A sun,  and a BOAT. ")
    'a sun and a boat'
    """
    return " ".join(unicodedata.normalize("NFKC", text).translate(_PUNCTUATION).casefold().split())


class _Punctuation(dict[int, int | None]):
    """For ``str.translate``: a space for every punctuation mark and control character, nothing for what cannot be seen.
    Filled in as characters are met."""

    def __missing__(self, code: int) -> int | None:
        separates = unicodedata.category(chr(code)).startswith(("P", "Cc"))
        self[code] = None if chr(code) in UNSEEN else ord(" ") if separates else code
        return self[code]


_PUNCTUATION = _Punctuation()


# --------------------------------------------------------------------------------------------------------- repetition


def repeats(text: str) -> int:
    """How often a phrase of one to four words follows itself at most; 1 for a text without repetition.

    What has neither letter nor digit is no word here: the rule of a table repeats nothing. Neither do the numbers of a
    series, such as a row of a table.

    >>> repeats("a sun a sun a sun"), repeats("very very red"), repeats("[0.1, 0.1, 0.1, 0.5]")
    (3, 2, 1)
    """
    words = _without_series([word for word in normal_text(text).split() if is_word(word)])
    if not words:
        return 0
    return max(_longest_run(words, size) // size + 1 for size in range(1, LONGEST_PHRASE + 1))


#: More numbers in a row are a loop if anything in them is.
LONGEST_SERIES = 64


def _without_series(words: Sequence[str]) -> list[str]:
    """The first one of numbers that follow each other."""
    kept: list[str] = []
    for numbers, of in itertools.groupby(words, lambda word: any(map(str.isdigit, word)) and not _LETTER.search(word)):
        group = list(of)
        kept += group[:1] if numbers and len(group) <= LONGEST_SERIES else group
    return kept


_LETTER = re.compile(r"[^\W\d_]")


def is_word(word: str) -> bool:
    return word.isalnum() or any(character.isalnum() for character in word)


def loops(text: str, most: int) -> bool:
    """Whether the text goes round in circles in a way that ``repeats`` does not see.

    One of: a phrase of more than four words follows itself more than ``most`` times; more than half of the sentences of
    five words and more are copies of earlier ones, and one occurs more than ``most`` times (a refrain is not as
    frequent); in a script without spaces a few characters do so over and over; so do the letters of a single word.

    >>> loops("There is a dog on the mat. " * 3, 2), loops("It is red. It is big. It is red. It is round.", 2)
    (True, False)
    """
    normal = normal_text(text)
    if _SYLLABLES.search(normal):
        return True
    units = _without_series([unit for unit in language.units(normal) if is_word(unit)])
    if len(units) > normal.count(" ") + 1:  # a script without spaces
        for size in range(1, LONGEST_PHRASE + 1):
            run = _longest_run(units, size)
            if run // size + 1 > most and run + size >= _LEAST_RUN:
                return True
    apart = _distances(units, LONGEST_PHRASE + 1)
    if any(_longest_run(units, size) // size + 1 > most for size in sorted(apart) if size > LONGEST_PHRASE):
        return True
    return bool(apart) and _copies(text, most)


_SYLLABLES = re.compile(rf"([^\W\d_]{{1,4}}?)(?:\1){{{LONG_WORD - 1},}}")
_SENTENCE_END = re.compile(r"[.!?\u3002\uff01\uff1f\n]+")


def _longest_run(units: Sequence[str], size: int) -> int:
    """How many units in a row equal the one ``size`` before, at most."""
    most = run = 0
    for i in range(size, len(units)):
        run = run + 1 if units[i] == units[i - size] else 0
        most = max(most, run)
    return most


def _distances(units: Sequence[str], size: int) -> set[int]:
    """How far apart equal phrases of ``size`` units stand, each from its last occurrence."""
    last: dict[tuple[str, ...], int] = {}
    apart = set()
    for i in range(len(units) - size + 1):
        phrase = tuple(units[i : i + size])
        if phrase in last:
            apart.add(i - last[phrase])
        last[phrase] = i
    return apart


def _copies(text: str, most: int) -> bool:
    parts = (tuple(filter(is_word, language.units(normal_text(part)))) for part in _SENTENCE_END.split(text))
    sentences = Counter(part for part in parts if len(part) > LONGEST_PHRASE)
    copies = sentences.total() - len(sentences)
    return bool(sentences) and max(sentences.values()) > most and copies > sentences.total() / 2


# ----------------------------------------------------------------------------------------------------- leaked templates

_TOKENS = re.compile(
    r"<\|/?[\w\u2581 -]{1,40}\|>"  # <|im_start|>, <|eot_id|>, <|endoftext|>
    r"|<\uff5c[\w\u2581 -]{1,40}\uff5c>"
    r"|\[/?INST\]|<</?SYS>>|\[(?:PAD|UNK|BOS|EOS|CLS|SEP)\]"
    r"|</?(?:image|im_start|im_end|im_patch|image_soft_token|start_of_image|end_of_image|start_of_turn|end_of_turn|"
    r"unk|pad|bos|eos|think|img_context|image_\d+|video|audio|bbox|ref-object)>"
    r"|(?:\A|\n)[ \t]*#{2,3} ?(?:Instruction|Response|Input|Human|User|Assistant|System) ?:"
)
_TURNS = re.compile(
    r"\A\s*(?:(?:ASSISTANT|Assistant|GPT) ?:|assistant\n)"  # it plays a role
    r"|\bASSISTANT:"
    r"|[\n.!?][ \t]*USER:\s[^\n]*\?"  # it asks itself the next question
    r"|\n[ \t]*(?:Human|User):\s[^\n]*\?"
    r"|(?:\A|\n)[ \t]*(?:Human|User|USER|Question) ?:[^\n]*\n+[ \t]*(?:Assistant|AI|Bot|GPT|ASSISTANT) ?:"
)
_END = re.compile(r"</?s>")


def leaks(text: str) -> bool:
    """Whether tokens or turns of a chat template, or a model's reasoning, stand in the text.

    ``<s>`` and ``</s>`` may also be HTML: struck-out text has both, in this order.

    >>> leaks("A dog. USER: What colour is it?"), leaks("Now <s>$20</s> $15"), leaks("User: admin")
    (True, False, False)
    """
    if has_reasoning(text):
        return True
    if "<" not in text and "[" not in text and ":" not in text and "assistant" not in text:
        return False
    if _TOKENS.search(text) or _TURNS.search(text):
        return True
    open_tags = 0
    for tag in _END.finditer(text):
        open_tags += 1 if tag.group() == "<s>" else -1
        if open_tags < 0 or (tag.group() == "<s>" and not text[: tag.start()].strip()):
            return True
    return open_tags > 0


# ------------------------------------------------------------------------------------------------------------- cut off

#: Words that cannot be the last of a clause; a capital A is a grade.
_OPEN_WORD = re.compile(r"(?:\b(?:the|and|or|but|an|because|whose)|(?<=[\w,] )a)\s*\Z")
_OPEN_MARK = re.compile(r"[,(\[{\u2014\u2013\uff0c\u3001]\s*\Z|\w-\s*\Z")
#: Shorter texts may be a label, a title, a blank to fill in.
LEAST_CUT = 8


def breaks_off(text: str) -> bool:
    """Whether a text of eight words or more ends in the middle of a clause.

    >>> breaks_off("There is a dog on the mat next to the"), breaks_off("the and")
    (True, False)
    """
    if not (_OPEN_WORD.search(text) or _OPEN_MARK.search(text)):
        return False
    return len(language.units(normal_text(text))) >= LEAST_CUT
