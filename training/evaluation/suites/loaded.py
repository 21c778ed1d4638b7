"""A suite with its questions, its pictures, and everything its numbers depend on: ready to be asked and scored."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from training.evaluation.asked import Answered, Asked
from training.evaluation.tally import Tally

#: An image as the prompts table has it: ``{"bytes": ..., "path": ...}``; a path without bytes is absolute.
Picture = Mapping[str, Any]


@dataclass(frozen=True)
class Loaded:
    """
    Args:
        pictures: what each ``Asked.image`` shows.
        score: a tally from the answers by id; they hold judgements where ``judge_prompt`` is given.
        judge_prompt: what a judge is asked about an answer, None where that answer needs no judgement. Without it, no
            judge is needed.
        data, files, prompt, parser, versions: see ``result.Provenance``; ``files`` is a digest of what the questions
            and truths were made from.
    """

    name: str
    version: str
    asked: tuple[Asked, ...]
    pictures: Mapping[str, Picture]
    score: Callable[[Mapping[str, Answered]], Tally]
    data: str
    files: str
    prompt: str = "as in the data"
    parser: str = "none"
    versions: Mapping[str, str] = field(default_factory=dict)
    judge_prompt: Callable[[Asked, str], str | None] | None = None


def limited(asked: Sequence[Asked], images: int | None, seed: int = 0) -> list[Asked]:
    """The questions about ``images`` images, drawn whatever the order of the questions; all, if None."""
    names = sorted({one.image for one in asked})
    if images is None or images >= len(names):
        return list(asked)
    kept = set(random.Random(f"limit:{seed}").sample(names, images))
    return [one for one in asked if one.image in kept]
