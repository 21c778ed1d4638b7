"""Is the answer right: 1 or 0 against ``facts.answer``, and null where no answer can be read."""

from __future__ import annotations

import string
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reward import Row, Scores
from reward.batch import Batch
from reward.yes_no import PARSERS


def normalised(text: str) -> str:
    """Case folded, white space collapsed, punctuation removed from both ends.

    >>> normalised("  Dark  Blue. ")
    'dark blue'
    """
    return " ".join(text.casefold().split()).strip(string.punctuation + " ")


class CorrectnessScorer:
    """Agreement with the known answer.

    =========================  =====================================================================================
    correctness                1.0 if right, 0.0 if wrong; null without ``facts.answer`` or if unparseable
    correctness.unparseable    1.0 if a yes/no question got an answer in which no yes or no can be read, else 0.0;
                               null without ``facts.answer``
    =========================  =====================================================================================

    Answers to questions whose truth is "yes" or "no" go through ``parser``; all others must match exactly once
    ``normalised``. The default is ``vlmevalkit`` although POPE's own metric uses ``official``: the latter reads every
    refusal as "yes", and a failure to answer must not become training data.

    Raises:
        ValueError: ``parser`` is not one of ``reward.yes_no.PARSERS``.
    """

    name = "correctness"
    names = ("correctness", "correctness.unparseable")

    def __init__(self, parser: str = "vlmevalkit") -> None:
        if parser not in PARSERS:
            raise ValueError(f"parser={parser!r} is unknown; use one of {', '.join(PARSERS)}")
        self.parser = parser
        self.version = f"1:{parser}"

    def score(self, rows: Sequence[Row]) -> Scores:
        table = [[self._values(candidate["text"], _answer(row)) for candidate in row["candidates"]] for row in rows]
        return {name: [[values[i] for values in row] for row in table] for i, name in enumerate(self.names)}

    def score_columns(self, batch: Batch) -> dict[str, Any]:
        """Every distinct text under every distinct answer is read once: most answers to questions are alike."""
        answers = pc.struct_field(batch.facts, "answer").take(pa.array(batch.prompt)).dictionary_encode()
        asked = np.flatnonzero(answers.is_valid().to_numpy(zero_copy_only=False))
        texts = batch.texts.take(pa.array(asked)).dictionary_encode()
        size = max(len(answers.dictionary), 1)
        codes = texts.indices.to_numpy(zero_copy_only=False).astype(np.int64) * size
        codes += answers.indices.take(pa.array(asked)).to_numpy(zero_copy_only=False)
        distinct, place = np.unique(codes, return_inverse=True)
        said, right = texts.dictionary.to_pylist(), answers.dictionary.to_pylist()
        values = [self._values(said[code // size], right[code % size]) for code in distinct.tolist()]
        everywhere = np.full(len(batch.texts), -1)
        everywhere[asked] = place
        index = pa.array(everywhere, mask=everywhere < 0)
        return {name: pa.array([v[i] for v in values], pa.float64()).take(index) for i, name in enumerate(self.names)}

    def _values(self, text: str, answer: str | None) -> tuple[float | None, float | None]:
        if answer is None:
            return None, None
        truth = normalised(answer)
        if truth not in ("yes", "no"):
            return float(normalised(text) == truth), 0.0
        said = PARSERS[self.parser](text)
        return (None, 1.0) if said is None else (float(said == truth), 0.0)


def _answer(row: Row) -> str | None:
    facts = row["facts"]
    answer: str | None = facts.get("answer") if facts else None
    return answer
