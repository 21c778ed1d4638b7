"""Words that stand on one side of a pair alone, by themselves and along with a word of the prompt."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pipeline.blindness.pair_texts import PairTexts

#: A word or a sign; of scripts that are written without spaces, a character.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|\w+|[^\w\s]")
#: Pairs that differ in more words are not compared with their prompt: what they say is in their words.
_MOST_WORDS = 8
_MOST_OF_PROMPT = 64
#: A clue is named if it is so many standard deviations away from chance: thousands are looked at.
_CERTAIN = 5.0
#: Of each kind.
_NAMED = 4

#: A word of one side, and the word of the prompt that it is seen along with.
Contrast = tuple[str, str | None]


@dataclass(frozen=True, slots=True)
class Clue:
    """``word`` stands on the chosen side alone in ``chosen`` pairs, on the rejected side alone in ``rejected``; with a
    ``prompt_word``, of the pairs whose prompt has that."""

    word: str
    prompt_word: str | None
    chosen: int
    rejected: int


def contrasts(pair: PairTexts) -> Iterator[tuple[Contrast, int]]:
    """Each with 1 if it is on the chosen side, -1 if it is on the rejected one.

    >>> list(contrasts(PairTexts("", "A cat?", "No", "Yes")))[:3]
    [(('no', None), 1), (('no', '?'), 1), (('no', 'a'), 1)]
    """
    chosen, rejected = set(_words(pair.chosen)), set(_words(pair.rejected))
    sides = ((1, sorted(chosen - rejected)), (-1, sorted(rejected - chosen)))
    few = sum(len(words) for _, words in sides) <= _MOST_WORDS
    # Its end is what is asked.
    asked = sorted(set(_words(pair.prompt)[-_MOST_OF_PROMPT:])) if few else []
    for sign, words in sides:
        for word in words:
            yield (word, None), sign
            yield from (((word, of_prompt), sign) for of_prompt in asked)


def clues(of_pairs: Sequence[Iterable[tuple[Contrast, int]]]) -> tuple[Clue, ...]:
    """The contrasts that say most about which side was chosen, the surest first: words alone, then words that say more
    along with one of the prompt. Of those that are equally one-sided in
    equally many pairs, such as the words of a phrase, one is named."""
    chosen, rejected = Counter[Contrast](), Counter[Contrast]()
    for of_pair in of_pairs:
        for contrast, sign in of_pair:
            (chosen if sign > 0 else rejected)[contrast] += 1

    def certainty(contrast: Contrast) -> float:
        number = chosen[contrast] + rejected[contrast]
        alone = (contrast[0], None)
        usual = 0.5 if contrast[1] is None else chosen[alone] / (chosen[alone] + rejected[alone])
        spread = math.sqrt(usual * (1 - usual) * number)
        return abs(chosen[contrast] - usual * number) / spread if spread else 0.0

    sure = {name: value for name in {**chosen, **rejected} if (value := certainty(name)) >= _CERTAIN}
    # Of equally sure ones the longest: it says more to whoever reads it.
    ordered = sorted(sure, key=lambda name: (-sure[name], -len(name[0]), -len(name[1] or ""), name[0], name[1] or ""))
    named: list[Clue] = []
    for with_prompt in (False, True):
        of_kind = [contrast for contrast in ordered if (contrast[1] is not None) == with_prompt]
        different = {frozenset((chosen[name], rejected[name])): name for name in reversed(of_kind)}
        most = [contrast for contrast in of_kind if contrast in different.values()][:_NAMED]
        named += [Clue(*contrast, chosen[contrast], rejected[contrast]) for contrast in most]
    return tuple(named)


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())
