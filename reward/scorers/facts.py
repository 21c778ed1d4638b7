"""What of a text the facts bear out: not objects alone, but their attributes, numbers and places as well."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from reward.scorers.protocol import Row, Scores
from reward.text.fact_findings import by_facts
from reward.text.lexicon import Lexicon
from reward.text.types import VERSION


class FactScorer:
    """Claims of a text by what the facts say of them (``reward.text.fact_findings.by_facts``).

    ==============  ==================================================
    facts.wrong     claims that are hallucinations
    facts.right     claims that are correct
    facts.unclear   claims, and sentences, on which nothing decides
    ==============  ==================================================

    All are null for questions (rows with ``facts.answer``) and where nothing is known of the image.
    """

    name = "facts"
    names = ("facts.wrong", "facts.right", "facts.unclear")

    def __init__(self, lexicon: Lexicon, complete: bool = True) -> None:
        self.lexicon, self.complete = lexicon, complete
        self.version = f"1:{VERSION}:{lexicon.version}:{complete}"

    def score(self, rows: Sequence[Row]) -> Scores:
        table = [[self._values(candidate["text"], row) for candidate in row["candidates"]] for row in rows]
        return {name: [[values[i] for values in row] for row in table] for i, name in enumerate(self.names)}

    def _values(self, text: str, row: Row) -> tuple[float | None, ...]:
        facts = row["facts"] or {}
        if facts.get("answer") is not None or not (facts.get("objects") or facts.get("regions")):
            return (None,) * len(self.names)
        counts = Counter(finding.verdict for finding in by_facts(text, facts, self.lexicon, self.complete))
        return tuple(float(counts[verdict]) for verdict in ("hallucination", "correct", "unclear"))
