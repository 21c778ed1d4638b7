"""How often what ranked the answers of a run is right by exact facts: of all answers that differ, and of its pairs."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from pipeline.pairing.config import Pair
from pipeline.pairing.rule import totals
from pipeline.publishing.hallucinated import RECIPE
from pipeline.running.store import Run
from reward.agreement.read_prompts import read
from reward.agreement.statistics import outcome
from reward.agreement.truth import known_attributes, preferences

#: Of any two answers that differ; of the pairs that were made.
ANSWERS, PAIRS = "answers", "pairs"


def measure(path: Path) -> dict[str, float | None]:
    """Two shares of the run ``path``, None where facts see no difference (``reward.agreement`` says which text is
    better). ``answers``: of any two answers that differ the better one is worth more by the recipe's weights, a tie
    being half. ``pairs``: the chosen text is the better one."""
    from pipeline.scenes.vocabulary import VOCABULARY

    policy = Pair.model_validate(json.loads((path / RECIPE).read_text())["pair"])
    prompts = read(str(path), with_images=False)
    attributes = known_attributes(prompts)
    made = _pairs(path)
    answers: list[float] = []
    pairs: list[float] = []
    for prompt in prompts:
        count = len(prompt.texts)
        worth = totals(prompt.scores, policy, range(count), count)
        chosen = made.get(prompt.id, set())
        for preference in preferences(prompt, VOCABULARY, attributes):
            better, worse = worth[preference.better], worth[preference.worse]
            if better is not None and worse is not None:
                answers.append(outcome(better, worse))
            if (preference.better, preference.worse) in chosen:
                pairs.append(1.0)
            elif (preference.worse, preference.better) in chosen:
                pairs.append(0.0)
    return {ANSWERS: statistics.fmean(answers) if answers else None, PAIRS: statistics.fmean(pairs) if pairs else None}


def _pairs(path: Path) -> dict[str, set[tuple[int, int]]]:
    """The pairs of each prompt, as the places of the chosen and the rejected text."""
    pairs: dict[str, set[tuple[int, int]]] = {}
    for table in Run(path).tables("pair"):
        for row in table.select(["id", "chosen", "rejected"]).to_pylist():
            if row["chosen"] is not None:
                pairs.setdefault(row["id"], set()).add((row["chosen"], row["rejected"]))
    return pairs
