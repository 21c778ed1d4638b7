"""Texts as numbers: their letters, words and lengths. Imports scikit-learn only where it is needed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from pipeline.blindness.contrasts import Contrast
from pipeline.blindness.pair_texts import PairTexts

Floats = np.ndarray[Any, np.dtype[np.float64]]

_ENDS, _COMMAS = re.compile(r"[.!?。！？؟]"), re.compile(r"[,;:、，；：،؛]")
#: Of the root mean square over all pairs; beyond it more tells no more.
_FARTHEST = 3.0


def ngrams(texts: Sequence[str]) -> Any:
    """TF-IDF of the n-grams of one to four characters within words, one sparse row per text.

    What scikit-learn calls ``char_wb``. The n-grams of a word are counted once, however often it occurs.
    """
    from sklearn.feature_extraction.text import TfidfTransformer

    counts, within = _words_and_ngrams(texts)
    return TfidfTransformer().fit_transform((counts @ within).tocsr())


def differences(pairs: Sequence[PairTexts], contrasts: Sequence[Iterable[tuple[Contrast, int]]]) -> Any:
    """A sparse row for each pair: what the chosen text has more of than the rejected one. With the two texts in each
    other's place it has the other sign; of two equal texts it is zero."""
    from scipy import sparse

    counts, within = _words_and_ngrams([side for pair in pairs for side in (pair.chosen, pair.rejected)])
    # What both say alike goes before anything is weighed: in long texts that is most.
    of_words = counts[0::2] - counts[1::2]
    of_words.eliminate_zeros()
    measures = [np.array([_measures(text) for text in (pair.chosen, pair.rejected)]) for pair in pairs]
    lengths = scaled(np.array([chosen - rejected for chosen, rejected in measures]))
    # Texts that differ in a word weigh as much as such that differ in all of them.
    parts = [_unit(_rare_first(of_words @ within)), _unit(_signs(contrasts)), sparse.csr_matrix(lengths)]
    return sparse.hstack(parts).tocsr()


def scaled(values: Floats) -> Floats:
    """[pairs, measures] over the root mean square of each measure: zero stays zero, and no sign changes."""
    spread = np.sqrt((values**2).mean(0))
    return np.clip(values / np.where(spread > 0, spread, 1.0), -_FARTHEST, _FARTHEST)


def _measures(text: str) -> Floats:
    """How much there is of each, on a scale on which twice as much is one step."""
    counts = (
        len(text.split()),
        len(text),
        len(_ENDS.findall(text)),
        len(_COMMAS.findall(text)),
        text.count("\n"),
        sum(map(str.isupper, text)),
        sum(map(str.isdigit, text)),
    )
    return np.log1p(np.array(counts, np.float64))


def _words_and_ngrams(texts: Sequence[str]) -> tuple[Any, Any]:
    """[texts, words] and [words, n-grams]: how often each is in each."""
    from scipy import sparse
    from sklearn.feature_extraction.text import CountVectorizer

    if not any(map(str.strip, texts)):  # scikit-learn refuses these
        return sparse.csr_matrix((len(texts), 1)), sparse.csr_matrix((1, 1))
    words = CountVectorizer(analyzer=lambda text: text.lower().split() or [""])
    counts = words.fit_transform(texts)
    within = CountVectorizer(analyzer="char_wb", ngram_range=(1, 4)).fit_transform(words.get_feature_names_out())
    return counts, within


def _rare_first(rows: Any) -> Any:
    """What few pairs differ in weighs more, as in TF-IDF."""
    rows = rows.tocsr().astype(np.float64)
    rows.eliminate_zeros()
    differ = np.bincount(rows.indices, minlength=rows.shape[1])
    weights = np.log((1 + rows.shape[0]) / (1 + differ)) + 1
    rows.data *= weights[rows.indices]
    return rows


def _signs(contrasts: Sequence[Iterable[tuple[Contrast, int]]]) -> Any:
    from scipy import sparse

    rows = [dict(of_pair) for of_pair in contrasts]
    # In alphabetical order: that of the pairs must not matter.
    names = sorted({contrast for row in rows for contrast in row}, key=lambda name: (name[0], name[1] or ""))
    place = {contrast: i for i, contrast in enumerate(names)}
    indices = [place[contrast] for row in rows for contrast in row]
    signs = [float(sign) for row in rows for sign in row.values()]
    starts = np.cumsum([0, *map(len, rows)])
    return sparse.csr_matrix((signs, indices, starts), (len(rows), max(len(names), 1)))


def _unit(rows: Any) -> Any:
    """Each row of length one; one of zeros stays as it is."""
    from sklearn.preprocessing import normalize

    return normalize(rows.tocsr())
