"""A scorer of any accuracy: exact facts, and noise."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar

from pipeline.scenes.scene_words import scenes
from reward.scorers.protocol import Row, Scores
from reward.text.fact_findings import by_facts


@dataclass(frozen=True)
class NoisyFacts:
    """Right claims of a description less twice the wrong ones, and normal noise of the deviation ``noise``, which
    depends on the prompt and the text alone; null for questions."""

    noise: float = 0.0
    name: ClassVar[str] = "noisy"
    version: ClassVar[str] = "1"

    def score(self, rows: Sequence[Row]) -> Scores:
        return {self.name: [[self._value(candidate["text"], row) for candidate in row["candidates"]] for row in rows]}

    def _value(self, text: str, row: Row) -> float | None:
        facts = row["facts"] or {}
        if facts.get("answer") is not None:
            return None
        verdicts = Counter(finding.verdict for finding in by_facts(text, facts, scenes(), complete=True))
        drawn = hashlib.blake2b(f"{row['id']}:{text}".encode(), digest_size=7).digest()
        share = (int.from_bytes(drawn) + 0.5) / 2**56
        return verdicts["correct"] - 2.0 * verdicts["hallucination"] + self.noise * NormalDist().inv_cdf(share)
