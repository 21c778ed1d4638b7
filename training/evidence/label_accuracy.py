"""How often what ranked the answers of a run prefers the one that is better by exact facts."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

from pipeline.pairing.config import Pair
from pipeline.pairing.rule import totals
from pipeline.publishing.hallucinated import RECIPE
from reward.agreement.read_prompts import read
from reward.agreement.statistics import outcome
from reward.agreement.truth import known_attributes, preferences


def accuracy(path: Path) -> float | None:
    """Share of the pairs of answers of the run ``path`` that differ by exact facts in which the better one is worth
    more by the recipe's weights, a tie being half (``reward.agreement``); None where no two differ."""
    from pipeline.scenes.vocabulary import VOCABULARY

    policy = Pair.model_validate(json.loads((path / RECIPE).read_text())["pair"])
    prompts = read(str(path), with_images=False)
    attributes = known_attributes(prompts)
    outcomes: list[float] = []
    for prompt in prompts:
        count = len(prompt.texts)
        worth = totals(prompt.scores, policy, range(count), count)
        for preference in preferences(prompt, VOCABULARY, attributes):
            better, worse = worth[preference.better], worth[preference.worse]
            if better is not None and worse is not None:
                outcomes.append(outcome(better, worse))
    return statistics.fmean(outcomes) if outcomes else None
