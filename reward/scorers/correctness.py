"""Is the answer right: 1 or 0 against the known answers, and null where no answer can be read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from reward.answers.match_answer import agrees, asks_yes_or_no, is_english, is_yes, reads_question, right
from reward.scorers.column_scorer import Batch
from reward.scorers.protocol import Row, Scores
from reward.text.yes_no import PARSERS


@dataclass(frozen=True)
class CorrectnessScorer:
    """Agreement with the known answer, or with any of them where several are right.

    =========================  =====================================================================================
    correctness                1.0 if right, 0.0 if wrong; null without ``facts.answer`` or if unparseable
    correctness.unparseable    1.0 if no answer can be read in the text, else 0.0; null without ``facts.answer``
    =========================  =====================================================================================

    What a text says is read by ``reward.answers.match_answer.agrees``, beside the last message of the prompt. With a
    ``parser``, answers to questions whose truth is "yes" or "no" are read as that harness reads them. None of them is
    the default: POPE's own reads every refusal as "yes", and "There are no cats, but a dog" is no "no" to a question
    about dogs. What is misread must not become data.

    Raises:
        ValueError: ``parser`` is not one of ``reward.text.yes_no.PARSERS``.
    """

    parser: str | None = None
    name: ClassVar[str] = "correctness"
    names: ClassVar[tuple[str, ...]] = ("correctness", "correctness.unparseable")

    def __post_init__(self) -> None:
        if self.parser is not None and self.parser not in PARSERS:
            raise ValueError(f"parser={self.parser!r} is unknown; use one of {', '.join(PARSERS)}")

    @property
    def version(self) -> str:
        return f"4:{self.parser}" if self.parser else "4"

    def score(self, rows: Sequence[Row]) -> Scores:
        table = [
            [self._values(candidate["text"], right(row["facts"]), _asked(row)) for candidate in row["candidates"]]
            for row in rows
        ]
        return {name: [[values[i] for values in row] for row in table] for i, name in enumerate(self.names)}

    def score_columns(self, batch: Batch) -> dict[str, Any]:
        """Every distinct text under every distinct answer is read once, and beside every distinct question where it may
        be up to that: most answers to questions are alike."""
        answers_of, asked = _right_answers(batch.facts), batch.asked.to_pylist()
        kinds: dict[tuple[tuple[str, ...], str | bool | None], int] = {}
        shown: list[tuple[tuple[str, ...], str | None]] = []
        number = np.full((2, len(asked)), -1)
        for i, (answers, question) in enumerate(zip(answers_of, asked, strict=True)):
            # A question of a language stands for all of it, where no more is read of it.
            for row, read in enumerate((question is None or is_english(question), question) if answers else ()):
                kind = kinds.setdefault((answers, read), len(shown))
                if kind == len(shown):
                    shown.append((answers, question))
                number[row, i] = kind
        questions = np.flatnonzero(number[0, batch.prompt] >= 0)
        texts = batch.texts.take(pa.array(questions)).dictionary_encode()
        distinct_texts, text = texts.dictionary.to_pylist(), texts.indices.to_numpy(zero_copy_only=False)
        beside = np.array([reads_question(read) for read in distinct_texts], np.int64)
        size = max(len(shown), 1)
        codes = text.astype(np.int64) * size + number[beside[text], batch.prompt[questions]]
        distinct, place = np.unique(codes, return_inverse=True)
        values = [self._values(distinct_texts[code // size], *shown[code % size]) for code in distinct.tolist()]
        everywhere = np.full(len(batch.texts), -1)
        everywhere[questions] = place
        index = pa.array(everywhere, mask=everywhere < 0)
        return {name: pa.array([v[i] for v in values], pa.float64()).take(index) for i, name in enumerate(self.names)}

    def _values(self, text: str, answers: tuple[str, ...], question: str | None) -> tuple[float | None, float | None]:
        if not answers:
            return None, None
        verdict = self._agrees(text, answers, question)
        return (None, 1.0) if verdict is None else (float(verdict), 0.0)

    def _agrees(self, text: str, answers: tuple[str, ...], question: str | None) -> bool | None:
        if self.parser is None or not all(map(asks_yes_or_no, answers)):
            return agrees(text, answers, question)
        word = PARSERS[self.parser](text)
        return None if word is None else any(is_yes(answer) == (word == "yes") for answer in answers)


def _asked(row: Row) -> str | None:
    """The last message of the prompt."""
    conversation = row.get("prompt")
    return conversation[-1]["content"] if conversation else None


def _right_answers(facts: Any) -> list[tuple[str, ...]]:
    first = pc.struct_field(facts, "answer").to_pylist()
    if facts.type.get_field_index("answers") < 0:
        return [() if answer is None else (answer,) for answer in first]
    others = pc.struct_field(facts, "answers").to_pylist()
    return [right({"answer": answer, "answers": more}) for answer, more in zip(first, others, strict=True)]
