"""The one way in which training and the reference pass turn pairs into log-probs.

Both use ``pair_logps`` with the same layout, so before the first update they agree to rounding.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from reward.forward import attention
from reward.forward.features import FeatureCache
from reward.forward.token_logps import Forward
from training.config import Branch, TrainConfig
from training.data.pairs import PairDataset
from training.data.schedule import Pass
from training.forward import sharing, towers
from training.forward.batch import answer, collate, has
from training.forward.logps import sequence_logps
from training.forward.model import DTYPES
from training.forward.read_ahead import ReadAhead

#: Summed response log-probs, float64 [B] per branch.
Logps = Mapping[Branch, Tensor]


@dataclass(frozen=True)
class Policy:
    """A model and how its forward pass runs; ``note`` says whether prefixes are shared."""

    model: nn.Module
    device: torch.device
    forward: Forward
    note: str = ""
    images: ReadAhead = field(default_factory=ReadAhead)

    def over(
        self,
        dataset: PairDataset,
        share: Sequence[Pass],
        branches: Sequence[Branch],
        then: Callable[[], Sequence[Pass]] = tuple,
    ) -> Iterator[Pass]:
        """The passes of ``share``, their images read ahead, and at the end those of the first of ``then``."""
        known = self.forward.cache.features if self.forward.cache else {}
        return self.images.over(dataset, share, branches, known, then)


def make_policy(model: nn.Module, device: torch.device, config: TrainConfig, dataset: PairDataset) -> Policy:
    """The policy as the configuration describes it, on ``device``."""
    model = model.to(device)
    tokenizer = dataset.processor.tokenizer
    one_call = config.attention_in_one_call and attention.can_call_once(device, DTYPES[config.precision])
    if one_call:
        towers.read_windows_in_one_call(model)
    forward = Forward(
        dtype=DTYPES[config.precision],
        share_prefix=config.share_prefix,
        share_images=config.share_image_features,
        head_chunk=config.head_chunk,
        response_only=config.head_on_responses,
        last_layer_on_responses=config.last_layer_on_responses,
        # Whatever stands there, the mask hides it.
        padding=next((id for id in (tokenizer.pad_token_id, tokenizer.eos_token_id) if id is not None), 0),
        one_call=one_call,
        cache=FeatureCache.half_of_free_memory(device) if config.cache_image_features else None,
    )
    forward, note = sharing.decide(model, dataset, config.branches, forward)
    return Policy(model, device, forward, note, ReadAhead(image_threads(config, device), pin=device.type == "cuda"))


def image_threads(config: TrainConfig, device: torch.device) -> int:
    """What ``image_threads`` comes to: beside a GPU the CPUs are free, without one they are the trainer's."""
    if config.image_threads != "auto":
        return config.image_threads
    return min(8, max(1, len(os.sched_getaffinity(0)) // config.processes - 1)) if device.type == "cuda" else 0


def pair_logps(policy: Policy, dataset: PairDataset, indices: Sequence[int], config: TrainConfig) -> Logps:
    """Log-probs of the given pairs; 0 for a branch that a pair does not have.

    All branches of the objective go through one forward pass. The corrupted one of ``probe_image`` is only measured, so
    it takes a pass of its own that keeps no graph.
    """
    if not config.probes:
        return _logps(policy, dataset, indices, config.branches)
    with torch.no_grad():
        probed = _logps(policy, dataset, indices, ("corrupted",))
    return {**_logps(policy, dataset, indices, ("chosen", "rejected")), **probed}


def response_lengths(dataset: PairDataset, indices: Sequence[int], config: TrainConfig, device: torch.device) -> Logps:
    """Response tokens of the given pairs, int64 [B] per branch; 0 for a branch that a pair does not have."""
    pairs = [dataset.pairs[index] for index in indices]
    return {
        branch: torch.tensor([len(answer(pair, branch)) if has(pair, branch) else 0 for pair in pairs], device=device)
        for branch in config.branches
    }


def _logps(policy: Policy, dataset: PairDataset, indices: Sequence[int], wanted: tuple[Branch, ...]) -> Logps:
    forward = policy.forward
    features = forward.cache.features if forward.cache else ()
    batch = collate(dataset, indices, wanted, features, forward.share_prefix, policy.images.read)
    return dict(zip(wanted, sequence_logps(policy.model, batch, forward), strict=True))
