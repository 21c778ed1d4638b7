"""Rows for a prompts table, from scenes: describe prompts and yes/no questions with their facts."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.scenes import grammar, raster
from pipeline.scenes.world import CELL_NAMES, SIZE, Scene, scene

KINDS = ("existence", "existence", "existence", "attribute", "count", "relation")


def facts(scene: Scene) -> dict[str, Any]:
    """What is true of the scene, as the ``facts`` struct of ``pipeline.base.tables``."""
    return {
        "objects": [
            {
                "name": thing.name,
                "count": thing.count,
                "attributes": [thing.colour],
                "boxes": [[x / SIZE, y / SIZE, (x + s) / SIZE, (y + s) / SIZE] for _, x, y, s in thing.places],
            }
            for thing in scene.objects
        ],
        "regions": [
            {
                "phrase": f"{grammar.Item(thing.name, thing.colour, 1).phrase} in the {CELL_NAMES[cell]}",
                "box": [x / SIZE, y / SIZE, (x + s) / SIZE, (y + s) / SIZE],
            }
            for thing in scene.objects
            for cell, x, y, s in thing.places
        ],
        "captions": [],
        "question_type": None,
        "answer": None,
    }


def build(
    scenes: int, questions_per_scene: int = 0, prompts: Sequence[str] | None = None, seed: int = 0
) -> Iterator[dict[str, Any]]:
    """One describe prompt per scene and ``questions_per_scene`` questions, half of them about existence.

    Yields dicts with ``images`` (list of ``{bytes, path}``), ``prompt`` (list of ``{role, content}``), ``facts``, and
    ``source``.
    """
    texts = tuple(prompts) if prompts else grammar.DESCRIBE
    for index in range(scenes):
        shown = scene(seed, index)
        rng = random.Random(f"prompts:{seed}:{index}")
        picture = [{"bytes": raster.png(shown), "path": f"scene-{seed}-{index}.png"}]
        truth = facts(shown)
        yield _row(picture, rng.choice(texts), truth, f"scenes:{seed}:describe")
        questions: set[str] = set()
        for _ in range(questions_per_scene):
            question = grammar.question(shown, rng.choice(KINDS), rng)
            if question.text in questions:
                continue
            questions.add(question.text)
            answered = {**truth, "question_type": question.kind, "answer": question.answer}
            yield _row(picture, question.text, answered, f"scenes:{seed}:{question.kind}")


def _row(images: list[dict[str, Any]], text: str, truth: dict[str, Any], source: str) -> dict[str, Any]:
    return {"images": images, "prompt": [{"role": "user", "content": text}], "facts": truth, "source": source}
