"""What a model is asked in an evaluation: rows for a prompts table."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from training.config.evaluation import EvaluateConfig
from training.evaluation import pope

#: ``source`` of a prompt that asks for a description, and how that of a POPE question begins.
DESCRIBE = "describe"
POPE = "pope:"


def build(config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Per held-out scene one describe prompt and its distinct POPE questions.

    Yields dicts with ``images`` (list of ``{bytes, path}``), ``prompt`` (list of ``{role, content}``), ``facts``, and
    ``source``: ``"describe"``, or ``"pope:random,popular"`` naming the splits a question belongs to. No two scenes have
    the same picture, so no two rows are alike.

    Raises:
        pydantic.ValidationError: ``config`` is no ``EvaluateConfig``.
    """
    from pipeline.scenes import draw
    from pipeline.scenes.prompts import facts
    from pipeline.scenes.vocabulary import article
    from pipeline.scenes.world import scene

    options = EvaluateConfig.model_validate(dict(config))
    pictures: dict[bytes, int] = {}
    index = 0
    while len(pictures) < options.scenes:
        pictures.setdefault(draw.png(scene(options.seed, index)), index)
        index += 1
    known = {index: facts(scene(options.seed, index)) for index in pictures.values()}
    names = [[thing["name"] for thing in known[index]["objects"]] for index in pictures.values()]
    questions: dict[int, list[pope.Question]] = {}
    for question in pope.build(names, options.per_image, options.seed, article=article):
        questions.setdefault(question.image, []).append(question)
    for position, (picture, index) in enumerate(pictures.items()):
        images = [{"bytes": picture, "path": f"scene-{options.seed}-{index}.png"}]
        yield _row(images, options.describe, known[index], DESCRIBE)
        for question in questions.get(position, ()):
            answered = {**known[index], "question_type": "existence", "answer": question.answer}
            yield _row(images, question.text, answered, POPE + ",".join(question.splits))


def _row(images: list[dict[str, Any]], text: str, facts: dict[str, Any], source: str) -> dict[str, Any]:
    return {"images": images, "prompt": [{"role": "user", "content": text}], "facts": facts, "source": source}
