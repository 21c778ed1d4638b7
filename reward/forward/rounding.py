"""How far apart two computations of the same log-probs may lie by rounding alone, and whether some lie farther.

Matrix products round by their shape: the same sequence in a pass of one pair and of eight, or packed and padded, gets
log-probs that differ. What follows judges such differences together, since one alone says little in bfloat16.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from reward.forward.parts import Parts

#: The relative error of a result. In bfloat16 products are added up in float32 and the sum is rounded once, by at most
#: half of 2^-7, in float16 of 2^-10; in float32 it is the sum itself that comes out otherwise in another order: 64 (the
#: root of the 4,096 terms that a wide layer adds up) times 2^-23.
UNIT = {torch.float32: 2.0**-17, torch.bfloat16: 2.0**-7, torch.float16: 2.0**-10}

#: The mean of many differences, in units of ``scale``, that rounding does not reach. Measured: at most 0.9 with a 7B
#: on an H100 (docs/gpu.md; of single answers 1.7), 0.6 with tiny models of up to 24 layers; the log-probs of another
#: image or of another row lie at 14 and more.
MEAN = 2.0


@dataclass(frozen=True, slots=True)
class Difference:
    """How far the two log-probs of one sequence of ``tokens`` response tokens are apart, in nats; ``name`` says of
    which sequence."""

    name: str
    tokens: int
    nats: float

    @property
    def per_token(self) -> float:
        """In nats per response token."""
        return abs(self.nats) / self.tokens


@dataclass(slots=True)
class Logits:
    """The largest absolute logit that was seen."""

    largest: float = 0.0


def scale(tokens: int, logits: float, dtype: torch.dtype) -> float:
    """The size of a difference that rounding makes, in nats: ``UNIT[dtype] * max(1, logits) * sqrt(tokens)``.

    A logit of size z is a sum that is rounded by ``UNIT * z``, and what it is made from was rounded as much before;
    log p is the difference of a logit and of a mean of logits. Tokens round independently, so that the errors of a
    sum of n of them grow with the root of n.

    >>> scale(4, 16.0, torch.bfloat16)
    0.25
    """
    return UNIT[dtype] * max(1.0, logits) * math.sqrt(tokens)


def bound(count: int) -> float:
    """What the mean of ``count`` differences may be, in units of ``scale``: ``MEAN`` times ``1 + 3 / sqrt(count)``.

    The second term is three standard errors of the mean, as a single difference varies by about its own size.

    >>> bound(1), bound(9)
    (8.0, 4.0)
    """
    return MEAN * (1 + 3 / math.sqrt(count))


@dataclass(frozen=True, slots=True)
class Judgement:
    """``mean`` and ``allowed`` in units of ``scale``; ``worst`` is the sequence that lies farthest in them."""

    mean: float
    allowed: float
    worst: Difference
    rounding: bool

    @property
    def told(self) -> str:
        """How far apart they are, for messages."""
        return (
            f"{self.worst.per_token:.3g} nats per token, on average {self.mean:.3g} times what rounding explains (at "
            f"most {self.allowed:.3g})"
        )


def judge(differences: Sequence[Difference], logits: float, dtype: torch.dtype) -> Judgement:
    """Whether rounding explains the differences: neither their mean nor any of them alone is beyond its ``bound``.

    ``logits`` is the size of the largest. Not a number is beyond every bound. At least one difference must be given.
    """
    ratios = [abs(difference.nats) / scale(difference.tokens, logits, dtype) for difference in differences]
    # NaN is larger than everything.
    order = sorted(range(len(ratios)), key=lambda index: (math.isnan(ratios[index]), ratios[index]))
    worst, mean = ratios[order[-1]], math.fsum(ratios) / len(ratios)
    within = mean <= bound(len(ratios)) and worst <= bound(1)
    return Judgement(mean, bound(len(ratios)), differences[order[-1]], within)


@contextlib.contextmanager
def watch(model: nn.Module) -> Iterator[Logits]:
    """Note the largest absolute logit of every forward pass inside the block."""
    seen = Logits()

    def look(_: nn.Module, __: Any, output: Tensor) -> None:
        low, high = torch.aminmax(output.detach())
        seen.largest = max(seen.largest, -low.item(), high.item())

    handle = Parts.of(model).head.register_forward_hook(look)
    try:
        yield seen
    finally:
        handle.remove()
