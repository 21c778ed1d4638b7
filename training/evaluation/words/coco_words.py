"""Which COCO objects a caption names: the rule of CHAIR (Rohrbach et al. 2018), in the variants that are in use.

All variants cut the lower-cased text into words, bring each to its singular, merge listed pairs of words from left to
right ("hot", "dog" -> "hot dog"; "baby", "bird" -> "bird"), drop "seat" where "toilet" is named as well, and look the
rest up in a list of synonyms. They differ in the lemmatiser, the pairs and the list:

===============  ==========================  =======================================  =========================
variant          lemmatiser                  pairs                                    as in
===============  ==========================  =======================================  =========================
original         ``singular``                listed                                   Rohrbach et al.'s script
standalone       ``singular``                listed                                   Maxlinn's standalone script
lmms_eval        WordNet by part of speech   listed                                   lmms-eval
object_halbench  WordNet, nouns              every synonym of two words or more       RLAIF-V
coco80           none, plurals are listed    every name of two words                  here
===============  ==========================  =======================================  =========================

"train track" is a pair of every variant: Rohrbach et al. added it in 2019, so ``standalone`` and ``original`` are one
rule by two names. ``lmms_eval`` cuts words with NLTK, since its tagger looks at the words around; the others do so with
``treebank``, which cuts alike.

The first four want the list of synonyms of their project as a file; ``coco80`` knows the names of the 80 classes, their
plurals and no synonyms. Its numbers are not comparable with published ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from reward.scorers.objects import ObjectVerdict
from reward.text.coco_vocabulary import ANIMALS, NAMES, plural
from reward.text.object_vocabulary import Mention
from training.errors import DataError
from training.evaluation import benchmark_files
from training.evaluation.words.lemmas import nltk_tokens, wordnet_by_part_of_speech, wordnet_nouns
from training.evaluation.words.singular import singular
from training.evaluation.words.treebank import Token, tokens

Variant = Literal["standalone", "original", "lmms_eval", "object_halbench", "coco80"]
#: The words of a text to their lemmas, as many and in the same order.
Lemmatiser = Callable[[Sequence[str]], Sequence[str]]
#: A text to its words, with their places.
Cut = Callable[[str], Sequence[Token]]


def _split(text: str) -> list[str]:
    return text.split(", ")


#: Pairs that are one word, as the scripts list them. The three words of "stove top oven" can never be merged.
_PAIRS = _split(
    "motor bike, motor cycle, air plane, traffic light, street light, traffic signal, stop light, fire hydrant, "
    "stop sign, parking meter, suit case, sports ball, baseball bat, baseball glove, tennis racket, wine glass, "
    "hot dog, cell phone, mobile phone, teddy bear, hair drier, potted plant, laptop computer, home plate, train track"
)
#: Pairs that are no class, and keep their second word from being read as one.
_NO_CLASS = ("home plate", "train track")
#: Pairs that stand for another word. "wine glas" is what the singular makes of "wine glass".
_ALIASES = {
    **{f"{young} {animal}": animal for animal in ANIMALS for young in ("baby", "adult")},
    **{f"passenger {vehicle}": vehicle for vehicle in ("jet", "train")},
    "bow tie": "tie",
    "toilet seat": "toilet",
    "wine glas": "wine glass",
}


@dataclass(frozen=True, slots=True)
class Synonyms:
    """``classes`` maps every word or pair of words to the class it stands for; ``version`` follows the content."""

    name: str
    version: str
    classes: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Words:
    """A variant ready for use. ``pairs`` maps two words, joined by a space, to what they are read as."""

    variant: str
    synonyms: Synonyms
    lemmatise: Lemmatiser
    pairs: Mapping[str, str]
    cut: Cut = tokens

    @property
    def version(self) -> str:
        return f"{self.variant}:{self.synonyms.name}@{self.synonyms.version}"

    def class_of(self, name: str) -> str:
        """The class that an annotated category belongs to.

        Raises:
            DataError: the list of synonyms does not know it.
        """
        if name not in self.synonyms.classes:
            raise DataError(
                f"category {name!r} is not in the list of synonyms {self.synonyms.name}; "
                "give the one that belongs to these annotations with --synonyms FILE"
            )
        return self.synonyms.classes[name]

    def mentions(self, text: str) -> list[Mention]:
        """Every object named in ``text``, repeats included, in order.

        ``surface`` is the lemma that was looked up; offsets are those in the lower-cased text.
        """
        lookups = self.merge(self.cut(text.lower()))
        words = {word for word, _, _ in lookups}
        seatless = {"toilet", "seat"} <= words
        classes = self.synonyms.classes
        return [
            Mention(start, end, word, classes[word])
            for word, start, end in lookups
            if word in classes and not (seatless and word == "seat")
        ]

    def merge(self, words: Sequence[Token]) -> list[tuple[str, int, int]]:
        """(lemma or pair, start, end), pairs merged greedily from the left."""
        lemmas = list(self.lemmatise([word.text for word in words]))
        lookups = []
        at = 0
        while at < len(words):
            pair = self.pairs.get(" ".join(lemmas[at : at + 2])) if at + 1 < len(words) else None
            last = at if pair is None else at + 1
            lookups.append((lemmas[at] if pair is None else pair, words[at].start, words[last].end))
            at = last + 1
        return lookups

    def truth(self, categories: Iterable[str], captions: Iterable[str]) -> frozenset[str]:
        """What is in an image: the annotated categories and what its reference captions name.

        Raises:
            DataError: a category is not in the list of synonyms.
        """
        named = (mention.name for caption in captions for mention in self.mentions(caption))
        return frozenset([*map(self.class_of, categories), *named])

    def judge(self, text: str, truth: frozenset[str]) -> ObjectVerdict:
        """``truth`` holds classes. Equal to ``reward.scorers.objects.judge``, with the mentions of this variant."""
        mentions = tuple(self.mentions(text))
        return verdict(mentions, truth)


def verdict(mentions: tuple[Mention, ...], truth: frozenset[str]) -> ObjectVerdict:
    named = frozenset(mention.name for mention in mentions)
    return ObjectVerdict(
        mentions=mentions,
        hallucinated=tuple(mention for mention in mentions if mention.name not in truth),
        covered=named & truth,
        truth=truth,
        repeated=len(mentions) - len(named),
    )


def read_synonyms(path: Path, strip: bool = False) -> Synonyms:
    """A list in CHAIR's layout: a class a line, its name first, then its synonyms, each behind a comma and one space.

    Odd entries stay as they are: a second space becomes part of the word, which then never matches, and neither does
    one with a capital letter. A word on two lines belongs to the later one. That is how CHAIR's scripts read their
    list; RLAIF-V's drops the spaces (``strip``).

    Raises:
        DataError: the file is missing, or names no class.
    """
    if not path.is_file():
        raise DataError(f"there is no file {path}; give --synonyms FILE, CHAIR's synonyms.txt (docs/evaluation.md)")
    content = benchmark_files.text(path)
    classes: dict[str, str] = {}
    for line in content.splitlines():
        words = [word.strip() if strip else word for word in line.strip().split(", ")]
        classes.update((word, words[0]) for word in words if word)
    if not classes:
        raise DataError(f"{path} names no class; give one a line: name, synonym, synonym")
    return Synonyms(path.stem, hashlib.sha256(content.encode()).hexdigest()[:12], classes)


def words(variant: str = "standalone", synonyms: Path | None = None) -> Words:
    """
    Raises:
        DataError: the variant is unknown, wants a file of synonyms that is not given, or a package that is missing.
    """
    if variant == "coco80":
        if synonyms is not None:
            raise DataError("variant coco80 has a list of its own; leave --synonyms out, or choose another --variant")
        return Words(variant, _coco80(), list, _own_pairs())
    if variant not in _VARIANTS:
        raise DataError(f"--variant {variant} is unknown; use one of {', '.join([*_VARIANTS, 'coco80'])}")
    if synonyms is None:
        raise DataError(
            f"variant {variant} wants a list of words; give --synonyms FILE: synonyms.txt of "
            "github.com/LisaAnne/Hallucination (data), for object_halbench synonyms_refine.txt of "
            "github.com/RLHF-V/RLAIF-V (eval/data); or choose --variant coco80, whose numbers are not comparable with "
            "published ones"
        )
    lemmatise, pairs = _VARIANTS[variant]
    classes = read_synonyms(synonyms, strip=variant == "object_halbench")
    return Words(variant, classes, lemmatise(), pairs(classes), nltk_tokens if variant == "lmms_eval" else tokens)


def lemmatiser_version(variant: str) -> str:
    """What brings words to their singular in a variant, with its version.

    >>> lemmatiser_version("standalone"), lemmatiser_version("coco80")
    ('singular@1', 'none')
    """
    if variant in ("lmms_eval", "object_halbench"):
        return f"nltk@{metadata.version('nltk')}"
    return "none" if variant == "coco80" else "singular@1"


def _fixed_pairs(_: Synonyms) -> dict[str, str]:
    return {**{pair: pair for pair in _PAIRS}, **_ALIASES}


def _every_pair(synonyms: Synonyms) -> dict[str, str]:
    two = {word: word for word in synonyms.classes if len(word.split()) >= 2}
    return {**two, **{pair: pair for pair in _NO_CLASS}, **_ALIASES}


def _coco80() -> Synonyms:
    classes = {form: name for name in NAMES for form in (name, plural(name))}
    return Synonyms("coco80", "1", {**classes, "persons": "person"})


def _own_pairs() -> dict[str, str]:
    two = {form: form for name in NAMES if " " in name for form in (name, plural(name))}
    aliases = {form: word for pair, word in _ALIASES.items() for form in (pair, plural(pair))}
    # What an alias stands for is looked up in its turn; "cub" and "animal" are no class, and are dropped there.
    nothing = {form: pair for pair in _NO_CLASS for form in (pair, plural(pair))}
    return {**two, **nothing, **aliases}


def _singulars(texts: Sequence[str]) -> list[str]:
    return [singular(text) for text in texts]


#: Variant -> (its lemmatiser, loaded when called; its pairs). Loading fails where a package is missing.
_VARIANTS: Mapping[str, tuple[Callable[[], Lemmatiser], Callable[[Synonyms], dict[str, str]]]] = {
    "standalone": (lambda: _singulars, _fixed_pairs),
    "original": (lambda: _singulars, _fixed_pairs),
    "lmms_eval": (wordnet_by_part_of_speech, _fixed_pairs),
    "object_halbench": (wordnet_nouns, _every_pair),
}
