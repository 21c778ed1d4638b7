"""NLTK's tagger and lemmatiser, which some published variants use. An import of this module does not need NLTK."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from training.errors import DataError

_REMEDY = (
    "pip install nltk && python -m nltk.downloader wordnet omw-1.4 averaged_perceptron_tagger_eng; "
    "other rules give other numbers, so nothing takes its place unasked"
)
#: First letter of a Penn Treebank tag -> part of speech of WordNet; all others are looked up as nouns.
_PARTS = {"J": "a", "V": "v", "R": "r"}

Lemmas = Callable[[Sequence[str]], list[str]]


def wordnet_nouns() -> Lemmas:
    """Every word as if it were a noun, as RLAIF-V does.

    Raises:
        DataError: NLTK or its data are missing.
    """
    _, lemmatiser = _nltk()
    return lambda words: [str(lemmatiser.lemmatize(word)) for word in words]


def wordnet_by_part_of_speech() -> Lemmas:
    """Every word by the part of speech it is tagged with, as lmms-eval does.

    Raises:
        DataError: NLTK or its data are missing.
    """
    nltk, lemmatiser = _nltk()
    return lambda words: [
        str(lemmatiser.lemmatize(word, _PARTS.get(tag[:1], "n"))) for word, tag in nltk.pos_tag(list(words))
    ]


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


def _nltk() -> tuple[Any, Any]:
    try:
        import nltk
        from nltk.stem import WordNetLemmatizer

        lemmatiser = WordNetLemmatizer()
        lemmatiser.lemmatize("dogs")
        nltk.pos_tag(["dogs"])
    except ImportError as error:
        raise DataError(f"NLTK is not installed; {_REMEDY}") from error
    except LookupError as error:
        raise DataError(f"NLTK misses its data; {_REMEDY}") from error
    return nltk, lemmatiser
