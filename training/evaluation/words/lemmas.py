"""NLTK's tokenizer, tagger and lemmatiser, which some published variants use. An import of this needs no NLTK."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from training.errors import DataError
from training.evaluation.words.singular import singular
from training.evaluation.words.treebank import Token, tokens

#: Everything that is used here of NLTK's data, by the names that its downloader knows.
RESOURCES = ("punkt_tab", "averaged_perceptron_tagger_eng", "wordnet", "omw-1.4")
_REMEDY = (
    f"pip install nltk && python -m nltk.downloader {' '.join(RESOURCES)}; "
    "or choose --nouns every_word for AMBER, --variant standalone for CHAIR, which give other numbers"
)
#: First letter of a Penn Treebank tag -> part of speech of WordNet; all others are looked up as nouns.
_PARTS = {"J": "a", "V": "v", "R": "r"}
#: What the tokenizer writes for a quotation mark, and what may stand in the text instead.
_QUOTES = {"``": ("``", '"', "''"), "''": ("''", '"')}

Lemmas = Callable[[Sequence[str]], list[str]]


def wordnet_nouns() -> Lemmas:
    """Every word as if it were a noun, as RLAIF-V does.

    Raises:
        DataError: NLTK or its data are missing.
    """
    _, lemmatiser = _nltk()
    return lambda words: [str(lemmatiser.lemmatize(word)) for word in words]


def wordnet_by_part_of_speech() -> Lemmas:
    """Every word by the part of speech it is tagged with, as lmms-eval does. Give it the words of ``nltk_tokens``: a
    tag depends on the words around it, quotation marks included.

    Raises:
        DataError: NLTK or its data are missing.
    """
    nltk, lemmatiser = _nltk()
    return lambda words: [
        str(lemmatiser.lemmatize(word, _PARTS.get(tag[:1], "n"))) for word, tag in nltk.pos_tag(list(words))
    ]


def nltk_tokens(text: str) -> list[Token]:
    """``nltk.word_tokenize``, with the place of every token. A double quotation mark becomes two single ones there.

    Raises:
        DataError: NLTK or its data are missing.
    """
    import nltk

    try:
        cut = nltk.word_tokenize(text)
    except LookupError as error:
        raise DataError(f"NLTK misses its data; {_REMEDY}") from error
    placed: list[Token] = []
    at = 0
    for word in cut:
        places = ((text.find(form, at), len(form)) for form in _QUOTES.get(word, (word,)))
        start, length = min((place for place in places if place[0] >= 0), default=(at, 0))
        at = start + length
        placed.append(Token(start, at, word))
    return placed


class Nouns(Protocol):
    """The nouns of a text as lemmas, in order. ``version`` names what finds them."""

    @property
    def version(self) -> str: ...

    def __call__(self, text: str) -> list[str]: ...


class EveryWordNouns:
    """Without a tagger: every word in lower case and in the singular, nouns or not.

    AMBER's vocabulary decides which of them count, so verbs that look like its nouns ("can", "watch") do as well. Its
    numbers are not comparable with published ones.
    """

    version = "every-word@2"

    def __call__(self, text: str) -> list[str]:
        return [singular(token.text.lower()) for token in tokens(text)]


class NltkNouns:
    """The nouns of a text, as AMBER's ``inference.py`` finds them: tagged NN*, then lemmatised, case kept.

    Raises:
        DataError: NLTK or its data are missing.
    """

    def __init__(self) -> None:
        self._nltk, self._lemmatiser = _nltk()
        self.version = f"nltk@{self._nltk.__version__}"

    def __call__(self, text: str) -> list[str]:
        tagged = self._nltk.pos_tag(self._nltk.word_tokenize(text))
        return [str(self._lemmatiser.lemmatize(word)) for word, tag in tagged if tag.startswith("NN")]


#: By the name that an option uses. Built when called: the first needs NLTK.
NOUNS: Mapping[str, Callable[[], Nouns]] = {"nltk": NltkNouns, "every_word": EveryWordNouns}


def _nltk() -> tuple[Any, Any]:
    """NLTK and its lemmatiser, with everything tried once: NLTK loads its data where it is first used, which would be
    after a model has answered."""
    try:
        import nltk
        from nltk.stem import WordNetLemmatizer
    except ImportError as error:
        raise DataError(f"NLTK is not installed; {_REMEDY}") from error
    lemmatiser = WordNetLemmatizer()
    uses: dict[str, Callable[[], Any]] = {
        "punkt_tab": lambda: nltk.word_tokenize("A dog. Dogs."),
        "averaged_perceptron_tagger_eng": lambda: nltk.pos_tag(["dogs"]),
        "wordnet": lambda: lemmatiser.lemmatize("dogs"),
    }
    missing = [name for name, use in uses.items() if not _works(use)]
    if missing:
        raise DataError(f"NLTK misses its data ({', '.join(missing)}); {_REMEDY}")
    return nltk, lemmatiser


def _works(use: Callable[[], Any]) -> bool:
    try:
        use()
    except LookupError:
        return False
    return True
