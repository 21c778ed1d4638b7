"""The pairs of a run that a person has accepted or swapped (``marks.jsonl``), as pairs with labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from pipeline.base.marks import ACCEPT, REJECT, PairKey
from reward.agreement.truth import LABEL, Prompt

#: The score that is 1 for the text that the run has chosen: its accuracy is how many pairs are the right way round.
PAIR = "(the pair)"


def marked(prompts: Sequence[Prompt], marks: Mapping[PairKey, str]) -> list[Prompt]:
    """For each marked pair its two texts with their scores, the one first that the person prefers: the chosen one of
    an accepted pair, the rejected one of a swapped pair. A pair that was rejected says nothing about which is better;
    one whose texts are no candidates any more is left out, too."""
    by_id = {prompt.id: prompt for prompt in prompts}
    labelled = []
    for key, mark in sorted(marks.items()):
        prompt = by_id.get(key.id)
        if mark == REJECT or prompt is None or not {key.chosen, key.rejected} <= set(prompt.texts):
            continue
        texts = (key.chosen, key.rejected) if mark == ACCEPT else (key.rejected, key.chosen)
        places = [prompt.texts.index(text) for text in texts]
        scores = {name: tuple(values[place] for place in places) for name, values in prompt.scores.items()}
        scores[PAIR] = (1.0, 0.0) if mark == ACCEPT else (0.0, 1.0)
        labelled.append(replace(prompt, texts=texts, scores=scores, label=LABEL))
    return labelled
