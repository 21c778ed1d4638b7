"""Whether a model can run a pair's prompt once for all answers, and a check that it does so without changing a number.

Decided once, before training: by the model's kind, then by trying some pairs both ways. Where it cannot, every answer
runs in a row of its own, and the reason is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from reward.forward.parts import Parts
from reward.forward.rounding import Difference, Judgement, judge, watch
from reward.forward.shareable import behind_head, enable, why_not
from reward.forward.token_logps import Forward
from training.config import Branch
from training.data.pairs import PairDataset
from training.errors import ModelError
from training.forward.batch import answer, collate, has
from training.forward.logps import sequence_logps
from training.forward.model import check_parts

#: How many pairs are tried: a wrong mask or position is off by more than 0.1 nats per token in each, which rounding
#: reaches in bfloat16 now and then, but not in the mean of several.
TRIED = {torch.float32: 1, torch.bfloat16: 8}


def check_head(model: nn.Module) -> None:
    """Raise ``ModelError`` unless logits are the head's output and nothing else: only the head is run in training."""
    if (change := behind_head(model)) is not None:
        raise ModelError(
            f"{Parts.of(model).name} changes its logits behind the head ({change}), which training does not do, so "
            "every log-prob would be wrong; use a model without it"
        )


def decide(
    model: nn.Module, dataset: PairDataset, branches: Sequence[Branch], forward: Forward, pairs: int | None = None
) -> tuple[Forward, str]:
    """The forward pass to train with, and a sentence that says whether prefixes are shared and if not, why.

    ``pairs`` is how many are tried, by default as many as the dtype needs (``TRIED``).

    Raises ``ModelError`` if the model's log-probs cannot be computed either way.
    """
    check_parts(model)
    check_head(model)
    if not forward.share_prefix:
        return forward, "prefix sharing: off (share_prefix=false)"
    alone = replace(forward, share_prefix=False)
    reason = why_not(model)
    if reason is None:
        enable(model)
        tried = to_try(dataset, pairs or TRIED[forward.dtype])
        try:
            verdict = compare(model, dataset, tried, branches, forward, alone)
        except torch.OutOfMemoryError:  # says nothing about sharing
            raise
        except Exception as error:  # a model whose forward does not pass the groups on fails in its own way
            reason = f"its forward failed with a packed row ({type(error).__name__}: {error})"
        else:
            apart = verdict.worst.per_token
            if verdict.rounding:
                return forward, f"prefix sharing: on (log-probs apart by at most {apart:.1g} nats per token)"
            reason = f"log-probs were apart by {verdict.told}"
    return alone, f"prefix sharing: off, as {reason}"


def to_try(dataset: PairDataset, count: int) -> list[int]:
    """Indices of at most so many pairs, evenly over all that show an image; where none does, over all.

    Rows of text alone may be among the others, and tell nothing about images.
    """
    places: Sequence[int] = [index for index, pair in enumerate(dataset.pairs) if pair.prompt.images]
    places = places or range(len(dataset.pairs))
    count = min(count, len(places))
    return [places[number * len(places) // count] for number in range(count)]


def compare(
    model: nn.Module,
    dataset: PairDataset,
    indices: Sequence[int],
    branches: Sequence[Branch],
    forward: Forward,
    other: Forward,
) -> Judgement:
    """Whether the log-probs of the given pairs, each in a pass of its own, are the same both ways but for rounding."""
    gaps: list[Difference] = []
    with watch(model) as logits:
        for index in indices:
            apart = differences(model, dataset, [index], branches, forward, other)
            pair = dataset.pairs[index]
            gaps += [
                Difference(f"log p of `{branch}` of {pair.name}", len(answer(pair, branch)), nats)
                for branch, (nats,) in zip(branches, apart.tolist(), strict=True)
                if has(pair, branch)
            ]
    return judge(gaps, logits.largest, forward.dtype)


@torch.no_grad()
def differences(
    model: nn.Module,
    dataset: PairDataset,
    indices: Sequence[int],
    branches: Sequence[Branch],
    forward: Forward,
    other: Forward,
) -> Tensor:
    """Each sequence's log-prob one way minus the other way, in nats: float64 [branches, pairs]."""
    results = []
    for way in (forward, other):
        batch = collate(dataset, indices, branches, share_prefix=way.share_prefix)
        results.append(sequence_logps(model, batch, replace(way, cache=None)))
    return results[0] - results[1]
