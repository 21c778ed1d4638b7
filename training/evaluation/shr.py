"""SHR, the share of hallucinated sentences (Zhao et al. 2023, HA-DPO), and how varied a text is.

The unit is the sentence, so made-up colours and relations count, which CHAIR cannot see. The verdicts come from a judge
that reads facts about the image, or, where objects are all there is to say, from the facts themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal, get_args

from reward.asking.judge import harmless
from reward.text import findings as detect
from reward.text import phrases as claims
from reward.text.lexicon import Lexicon, general
from reward.text.types import Facts
from reward.text.vocabulary import Vocabulary
from training.evaluation.ratio import Term

Verdict = Literal["hallucination", "correct", "cannot judge"]
VERDICTS: tuple[str, ...] = get_args(Verdict)
#: Above each line of the judge's answer stands this one.
_HEAD = "Judgement:"
_DELETED = re.compile(r"[.:\n?,]")

_PROMPT = """\
Sentences from a description of an image are to be checked against what is known of the image.

What is known, as [left, top, right, bottom]: text, with coordinates as fractions of width and height. Boxes that
overlap much may show the same thing.
{regions}

Also true:
{facts}

The sentences:
{sentences}

Decide for every sentence: "hallucination" if what is known contradicts it or it names something that is not there,
"correct" if what is known supports it, "cannot judge" if it is a matter of opinion or mood, or nothing is known of it.
Answer in exactly this form, a line for each sentence:
Judgement:
1. hallucination: the reason
2. correct: the reason"""


def sentences(text: str) -> list[str]:
    """What stands between full stops, in order, without what an earlier sentence already contains word for word.

    Only full stops divide: a question is part of the next sentence, and "3.5" is cut in two. As in the original.

    >>> sentences("A cat sits. A dog. A cat. Is it 3.5 m?")
    ['A cat sits', 'A dog', 'Is it 3', '5 m?']
    """
    found: list[str] = []
    for part in text.split("."):
        sentence = part.strip()
        if sentence and not any(sentence in earlier for earlier in found):
            found.append(sentence)
    return found


def prompt(regions: Iterable[tuple[Sequence[float], str]], facts: Iterable[str], text: str) -> str:
    """What a judge is asked about ``text``, in words of this project; ``read`` understands the answer.

    ``regions`` are (box, what is in it), boxes as (x1, y1, x2, y2) in fractions of width and height.
    """
    seen = [f"[{', '.join(f'{edge:.2f}' for edge in box)}]: {phrase}" for box, phrase in regions]
    numbered = (f"{number}. {sentence}" for number, sentence in enumerate(sentences(text), 1))
    # Replaced in one pass, so that braces in what was said are nothing but braces.
    parts = {"regions": "\n".join(seen) or "(nothing)", "facts": "\n".join(facts) or "(nothing)",
             "sentences": harmless("\n".join(numbered))}  # fmt: skip
    return re.sub(r"\{(regions|facts|sentences)\}", lambda match: parts[match[1]], _PROMPT)


def read(judgement: str, text: str) -> list[Verdict | None] | None:
    """The judge's verdict on each of ``sentences(text)``; None if there is not exactly one line for each.

    A line is a number, a space, a verdict and a colon, as the original reads it. A verdict that is none of the three
    is None; such a sentence counts nowhere.

    >>> read("Judgement:\\n1. Correct: seen.\\n2. cannot judge: mood.", "A cat sits. How calm.")
    ['correct', 'cannot judge']
    """
    lines = [line for line in judgement.split("\n") if line]
    head = next((at for at, line in enumerate(lines) if _HEAD in line), None)
    if head is None:
        return None
    said = [line.partition(" ")[2].strip() for line in lines[head + 1 :]]
    verdicts = [_verdict(line.split(":")[0].lower()) for line in said if line]
    return verdicts if len(verdicts) == len(sentences(text)) else None


def by_facts(text: str, truth: frozenset[str], vocabulary: Vocabulary) -> list[Verdict | None]:
    """Verdicts by the objects that a sentence names: one that is not there, else one that is, else none at all.

    What is denied is not named: "no boat" is no hallucination, and nothing that could be judged.

    >>> vocabulary = Vocabulary("demo", "1", {"sun": "sun", "boat": "boat"})
    >>> by_facts("A sun. A boat and a sun. No boat. How calm.", frozenset({"sun"}), vocabulary)
    ['correct', 'hallucination', 'cannot judge', 'cannot judge']
    """
    lexicon = general(vocabulary)
    there = {vocabulary.canonical(name) for name in truth}
    found: list[Verdict | None] = []
    for sentence in sentences(text):
        named = {phrase.name for phrase in claims.read(sentence, lexicon)}
        found.append("hallucination" if named - there else "correct" if named else "cannot judge")
    return found


def by_every_fact(text: str, facts: Facts, lexicon: Lexicon) -> list[Verdict | None]:
    """Verdicts by all that facts can tell: objects, attributes, numbers and places, as ``reward.text.types`` reads
    them. One wrong claim makes a sentence a hallucination; else one right claim makes it correct.

    >>> from pipeline.scenes.lexicon import scenes
    >>> facts = {"objects": [{"name": "sun", "count": 1, "attributes": ["red"]}]}
    >>> by_every_fact("A red sun. A blue sun. No boat. How calm.", facts, scenes())
    ['correct', 'hallucination', 'cannot judge', 'cannot judge']
    """
    found: list[Verdict | None] = []
    for sentence in sentences(text):
        said = {one.verdict for one in detect.by_facts(sentence, facts, lexicon)}
        found.append("hallucination" if "hallucination" in said else "correct" if "correct" in said else "cannot judge")
    return found


def terms(verdicts: Sequence[Verdict | None], text: str) -> dict[str, Term]:
    """What one description adds: ``shr`` and ``shr_words`` (each sentence weighs as many words as it has) over all
    sentences with a verdict, "cannot judge" included; ``sentences`` and ``words`` per description, over all sentences.
    """
    # Split at every single space, as in the original: two spaces make a word more.
    lengths = [len(sentence.split(" ")) for sentence in sentences(text)]
    judged = [(verdict, words) for verdict, words in zip(verdicts, lengths, strict=True) if verdict is not None]
    wrong = [words for verdict, words in judged if verdict == "hallucination"]
    return {
        "shr": (len(wrong), len(judged)),
        "shr_words": (sum(wrong), sum(words for _, words in judged)),
        "sentences": (len(lengths), 1),
        "words": (sum(lengths), 1),
    }


def distinct(text: str, n: int) -> float | None:
    """Distinct n-grams / n-grams, in words; None for a text of fewer than n words, where the original stops.

    Signs are deleted and put nothing in their place: a line break joins the words beside it.

    >>> distinct("a b a b", 1), distinct("a b a b", 2), distinct("a", 2)
    (0.5, 0.6666666666666666, None)
    """
    words = _DELETED.sub("", text).split()
    grams = [tuple(words[at : at + n]) for at in range(len(words) - n + 1)]
    return len(set(grams)) / len(grams) if grams else None


def varied(text: str) -> dict[str, Term]:
    """``distinct_1`` to ``distinct_4``: means over descriptions."""
    ratios = {f"distinct_{n}": distinct(text, n) for n in range(1, 5)}
    return {name: (ratio or 0.0, float(ratio is not None)) for name, ratio in ratios.items()}


def _verdict(said: str) -> Verdict | None:
    match said:
        case "hallucination" | "correct" | "cannot judge":
            return said
        case _:
            return None
