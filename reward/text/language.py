"""Which script and which language a text is in, as far as that can be told without a model.

Scripts are told by the names of letters. Seven languages in Latin script are told apart by their most frequent words;
of a text with few of those, or one between two related languages, nothing is claimed.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping
from typing import NamedTuple

#: One system: Japanese is written in all of these, Chinese in one of them.
_CJK = frozenset({"CJK", "HIRAGANA", "KATAKANA", "BOPOMOFO"})
#: Characters of scripts without spaces between words.
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Burmese, Khmer
    "\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff"  # kana
    "\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese characters
)
#: How many letters of an alphabet a character stands for.
_WEIGHTS: Mapping[str, int] = {"CJK": 3, "HANGUL": 3}
#: A script with this share of a prompt's letters is a script of the prompt.
_OF_PROMPT = 0.2

_WORD = re.compile(r"[^\W\d_]+")
_LISTS = {
    "de": "der die das und ist sind ein eine einen einem einer nicht mit auf im in zu von den dem des es ich sie er "
    "wir für sich auch wie was wird hat gibt",
    "en": "the a an is are was were in on of and to with this that there it i you he she they has have for from at "
    "by be as not which what how do does",
    "es": "el la los las un una unos de del y es son en con por para no que se hay está están este esta su al como "
    "qué cuál",
    "fr": "le la les un une des du de et est sont dans sur avec pour pas il elle ce cette qui que au aux en on nous "
    "vous je quel quelle y a",
    "it": "il lo la gli le i un una di del della dei e è sono in con per non che si questo questa su al come nel "
    "nella cosa quale",
    "nl": "de het een en is zijn in op met van voor niet dat die er ik je we ze naar aan bij ook hoe wat wordt "
    "heeft staat",
    "pt": "o a os as um uma de do da dos das e é são em no na com por para não que se há está este esta seu ao como "
    "qual",
}
#: The most frequent words of each language, case folded.
_FREQUENT = {name: frozenset(words.split()) for name, words in _LISTS.items()}
#: The languages that a word is frequent in.
_LANGUAGES = {
    word: [name for name in _FREQUENT if word in _FREQUENT[name]] for word in frozenset().union(*_FREQUENT.values())
}
#: The languages that can be told.
LANGUAGES = tuple(_LISTS)
#: In a prompt that names a language or asks for what is written, an answer may be in any. Case does not matter.
FREE = (
    r"\b(?:translat\w*|transcri\w*|ocr|languages?|written|writing|writes?|texts?|says?|said|reads?|signs?|spell\w*|"
    r"english|chinese|mandarin|japanese|korean|french|german|spanish|italian|portuguese|dutch|russian|arabic|hindi|"
    r"greek|hebrew|thai|turkish|polish|vietnamese|latin|übersetz\w*|auf (?:englisch|deutsch)|tradui\w*|traduc\w*|"
    r"en (?:anglais|inglés|français|español))\b|[英中日韩法德俄][文语語]|翻[译譯]|翻訳|文字|写着|번역|영어"
)
_FREE = re.compile(FREE, re.IGNORECASE)
#: Of a prompt with fewer letters nothing is told.
LEAST_LETTERS = 4
#: Frequent words that a text in a language has at the least, and how many times those of any other language.
LEAST_HITS, AHEAD = 2, 1.5
_CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_QUOTED = re.compile(
    r"\"[^\"\n]{1,300}\"|[“„][^“”„\n]{1,300}[”“]|«[^»\n]{1,300}»|「[^」]{1,300}」|『[^』]{1,300}』|《[^》]{1,300}》"
)


class AnswerLanguage(NamedTuple):
    """What a prompt says about the language of its answers. ``scripts`` is empty, and ``language`` None, where nothing
    can be told; so are both where the prompt leaves the language free."""

    scripts: frozenset[str]
    language: str | None


NOTHING = AnswerLanguage(frozenset(), None)


@functools.lru_cache(maxsize=4096)
def answer_language(prompt: str) -> AnswerLanguage:
    """
    >>> answer_language("Is there a dog in the picture?")
    AnswerLanguage(scripts=frozenset({'LATIN'}), language='en')
    >>> answer_language("Describe the image in French."), answer_language("2 + 2?")
    (AnswerLanguage(scripts=frozenset(), language=None), AnswerLanguage(scripts=frozenset(), language=None))
    """
    if _FREE.search(prompt):
        return NOTHING
    letters = scripts(prompt)
    total = letters.total()
    if total < LEAST_LETTERS:
        return NOTHING
    common = frozenset(script for script, number in letters.items() if number >= _OF_PROMPT * total)
    return AnswerLanguage(common, language(prompt))


def scripts(text: str) -> Counter[str]:
    """Letters by script; a character of Chinese, Japanese or Korean counts as three.

    >>> sorted(scripts("Sun 太陽, \u03a91").items())
    [('CJK', 6), ('GREEK', 1), ('LATIN', 3)]
    """
    counts: Counter[str] = Counter()
    if text.isascii():
        return Counter(LATIN=letters) if (letters := sum(map(str.isalpha, text))) else counts
    for character, number in Counter(unicodedata.normalize("NFKC", text)).items():
        name = _script(character)
        if name:
            counts[name] += number * _WEIGHTS.get(name, 1)
    return counts


@functools.lru_cache(maxsize=65_536)
def _script(character: str) -> str:
    """The script of a letter; "" for what is no letter, or one that all scripts share."""
    if not character.isalpha():
        return ""
    name = unicodedata.name(character, "").split(" ")[0]
    return "CJK" if name in _CJK else "" if name == "MODIFIER" else name


def language(text: str) -> str | None:
    """The language whose frequent words occur at least twice and half as often again as those of any other.

    >>> language("Is there a dog?"), language("Ein Hund ist auf dem Bild."), language("dog")
    ('en', 'de', None)
    """
    hits = sorted(((number, name) for name, number in _hits(text)[0].items()), reverse=True)
    return hits[0][1] if hits[0][0] >= LEAST_HITS and hits[0][0] >= AHEAD * hits[1][0] else None


def foreign_script(text: str, of: AnswerLanguage, least: int = 20, most: float = 0.3, most_latin: float = 0.8) -> bool:
    """Whether too large a share of the letters belongs to no script of the prompt.

    Quotations and code are left out. Texts of fewer than ``least`` letters are never foreign: a name may be in any
    script. Latin letters stand in texts of every script, for brands and units, so they have a bound of their own.
    """
    if not of.scripts or (text.isascii() and "LATIN" in of.scripts):
        return False
    letters = scripts(own_words(text))
    total = letters.total()
    if total < least:
        return False
    outside = sum(number for name, number in letters.items() if name not in of.scripts and name != "LATIN")
    latin = 0 if "LATIN" in of.scripts else letters["LATIN"]
    return outside > most * total or latin > most_latin * total


def foreign_language(text: str, of: AnswerLanguage, least: int = 20) -> bool:
    """Whether a text of at least ``least`` words is full of the frequent words of another language than the prompt's:
    a fifth of its words, and more than three times as many as of the prompt's."""
    if of.language is None or len(text) < 2 * least:
        return False
    hits, words = _hits(own_words(text))
    expected = hits.pop(of.language)
    other = max(hits.values())
    return words >= least and other >= words / 5 and other > 3 * expected


def frequent(language: str) -> frozenset[str]:
    """The most frequent words of a language that ``language`` can tell, case folded."""
    return _FREQUENT[language]


def own_words(text: str) -> str:
    """The text without quotations and code."""
    return _QUOTED.sub(" ", _CODE.sub(" ", text))


def units(normal: str) -> list[str]:
    """The words of a normalised text; in a script without spaces every character is one.

    >>> units("the sun 太陽")
    ['the', 'sun', '太', '陽']
    """
    return normal.split() if normal.isascii() else _EACH.sub(r" \g<0> ", normal).split()


_EACH = re.compile(f"[{UNSPACED}]")


def _hits(text: str) -> tuple[dict[str, int], int]:
    """How many words of the text are frequent in each language, and how many words there are."""
    words = _WORD.findall(text.casefold())
    hits = dict.fromkeys(_FREQUENT, 0)
    for word in words:
        for name in _LANGUAGES.get(word, ()):
            hits[name] += 1
    return hits, len(words)
