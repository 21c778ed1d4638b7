"""The image-blind control: the same scorer, shown another prompt's image. One that looks falls to chance."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from reward.agreement.truth import Prompt
from reward.scorers.protocol import Scorer

#: Score name + this: the score with the wrong images.
SWAPPED = " (image swapped)"


def swap_images(prompts: Sequence[Prompt], seed: int = 0) -> list[Prompt]:
    """Every prompt with the images of another one, drawn among those that have as many and other images; prompts for
    which there are none are left out."""
    by_count: dict[int, dict[tuple[bytes, ...], None]] = {}
    for prompt in prompts:
        if prompt.images:
            by_count.setdefault(len(prompt.images), {})[prompt.images] = None
    exchanged = []
    for prompt in prompts:
        pool = list(by_count.get(len(prompt.images or ()), ()))
        if len(pool) < 2:
            continue
        at = pool.index(prompt.images or ())
        # Any place but its own.
        step = random.Random(f"swap:{seed}:{prompt.id}").randrange(1, len(pool))
        exchanged.append(replace(prompt, images=pool[(at + step) % len(pool)]))
    return exchanged


def rescore(prompts: Sequence[Prompt], scorer: Scorer, title: str, control: bool) -> list[Prompt]:
    """The prompts whose images are known, with the scorer's scores under ``title.NAME`` added to theirs, and if
    ``control`` also those with swapped images."""
    with_images = [prompt for prompt in prompts if prompt.images is not None]
    result = {prompt.id: prompt for prompt in with_images}
    passes = [("", with_images), (SWAPPED, swap_images(with_images))] if control else [("", with_images)]
    for suffix, shown in passes:
        rows = [
            {
                "images": list(prompt.images or ()),
                "prompt": [{"role": role, "content": text} for role, text in prompt.messages],
                "facts": prompt.facts,
                "candidates": [{"text": text} for text in prompt.texts],
            }
            for prompt in shown
        ]
        for name, values in scorer.score(rows).items():
            for prompt, of_row in zip(shown, values, strict=True):
                before = result[prompt.id]
                key = f"{title}{name.removeprefix(title.partition(':')[0])}{suffix}"
                result[prompt.id] = replace(before, scores={**before.scores, key: tuple(of_row)})
    return [result.get(prompt.id, prompt) for prompt in prompts]
