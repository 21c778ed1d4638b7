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
from reward.agreement.truth import KINDS, known_attributes, preferences

#: Of any two answers that differ; of the pairs that were made; of those of them that differ in what is made up.
ANSWERS, PAIRS, MADE_UP = "answers", "pairs", "made_up"


def measure(path: Path) -> dict[str, float | None]:
    """Three shares of the run ``path``, None where facts see no difference (``reward.agreement`` says which text is
    better). ``answers``: of any two answers that differ the better one is worth more by the recipe's weights, a tie
    being half. ``pairs``: the chosen text is the better one; ``made_up``: of those whose texts make up differently
    many objects, it makes up fewer."""
    from pipeline.scenes.vocabulary import VOCABULARY

    policy = Pair.model_validate(json.loads((path / RECIPE).read_text())["pair"])
    prompts = read(str(path), with_images=False)
    attributes = known_attributes(prompts)
    made = _pairs(path)
    answers: list[float] = []
    pairs: list[float] = []
    made_up: list[float] = []
    for prompt in prompts:
        count = len(prompt.texts)
        worth = totals(prompt.scores, policy, range(count), count)
        chosen = made.get(prompt.id, set())
        for preference in preferences(prompt, VOCABULARY, attributes):
            better, worse = worth[preference.better], worth[preference.worse]
            if better is not None and worse is not None:
                answers.append(outcome(better, worse))
            is_right = (preference.better, preference.worse) in chosen
            if is_right or (preference.worse, preference.better) in chosen:
                pairs.append(float(is_right))
                if preference.kind == KINDS[0]:
                    made_up.append(float(is_right))
    shares = {ANSWERS: answers, PAIRS: pairs, MADE_UP: made_up}
    return {name: statistics.fmean(outcomes) if outcomes else None for name, outcomes in shares.items()}


def _pairs(path: Path) -> dict[str, set[tuple[int, int]]]:
    """The pairs of each prompt, as the places of the chosen and the rejected text."""
    pairs: dict[str, set[tuple[int, int]]] = {}
    for table in Run(path).tables("pair"):
        for row in table.select(["id", "chosen", "rejected"]).to_pylist():
            if row["chosen"] is not None:
                pairs.setdefault(row["id"], set()).add((row["chosen"], row["rejected"]))
    return pairs
