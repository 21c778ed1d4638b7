"""How long a GPU takes for what is asked of a model, at best: the roofline of its arithmetic and of its memory.

A prompt is computed once, which its arithmetic limits. Of an answer each token reads all weights and the keys and
values of its sequence, which memory limits, for as many answers at a time as are in the engine.
"""

from __future__ import annotations

from dataclasses import dataclass

from training.sizing.architecture import Architecture

#: An H100 SXM by its maker: bfloat16 operations a second without sparsity, bytes a second of its memory.
H100_FLOPS, H100_BYTES = 989e12, 3.35e12


@dataclass(frozen=True, slots=True)
class Share:
    """What of the card's arithmetic and of its memory's speed an engine reaches."""

    arithmetic: float
    memory: float


@dataclass(frozen=True, slots=True)
class Asked:
    """Of one request: ``computed`` tokens of its prompt (those that a cache has are not), the image's ``patches`` that
    the tower sees, ``answers`` with ``tokens`` each, after ``context`` tokens."""

    computed: float
    patches: float
    answers: int
    tokens: int
    context: int


def seconds(shape: Architecture, asked: Asked, share: Share, at_once: int) -> tuple[float, float]:
    """Seconds of one H100 for a request: for its prompt, and for its answers with ``at_once`` of them in the engine.

    Weights, keys and values in bfloat16. Several cards that hold a model together take as long altogether.
    """
    arithmetic, memory = H100_FLOPS * share.arithmetic, H100_BYTES * share.memory
    prompt = 2 * (shape.split * asked.computed + shape.tower * asked.patches) / arithmetic
    per_token = 2 * shape.layers * shape.keys * 2
    read = 2 * shape.parameters + at_once * (asked.context + asked.tokens / 2) * per_token
    step = max(read / memory, 2 * shape.split * at_once / arithmetic)
    return prompt, asked.answers * asked.tokens * step / at_once
