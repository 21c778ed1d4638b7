"""How alike two nouns are. AMBER takes near-synonyms for the same object, and which ones depends on the model."""

from __future__ import annotations

from functools import lru_cache
from typing import Protocol

from training.errors import DataError
from training.evaluation.words.spacy_models import open_model


class Similarity(Protocol):
    """From 1 for the same word down to -1. ``version`` names the model and its build: scores of two differ."""

    version: str

    def __call__(self, a: str, b: str) -> float: ...


class Exact:
    """Only a word itself is alike: AMBER by exact matches and its list of associations alone.

    It finds fewer true objects and fewer known hallucinations than the original, so its numbers are not comparable
    with published ones.
    """

    version = "exact@1"

    def __call__(self, a: str, b: str) -> float:
        return float(a == b)


class Spacy:
    """Cosine of spaCy's word vectors, as in AMBER's ``inference.py``, which loads ``en_core_web_lg``.

    Smaller models give other numbers (``en_core_web_sm`` has no word vectors at all), so none takes its place.

    Raises:
        DataError: spaCy or the model is missing, or the model has no word vectors.
    """

    def __init__(self, model: str = "en_core_web_lg") -> None:
        self._nlp, self.version = open_model(model, "similarity model", "--similarity exact")
        if not self._nlp.vocab.vectors_length:
            raise DataError(f"{model} has no word vectors; use en_core_web_lg, or --similarity exact")
        self._read = lru_cache(maxsize=None)(self._nlp)

    def __call__(self, a: str, b: str) -> float:
        return float(self._read(a).similarity(self._read(b)))


#: By the name that an option uses. Built when called: Spacy loads its model.
SIMILARITIES = {"spacy": Spacy, "exact": Exact}
