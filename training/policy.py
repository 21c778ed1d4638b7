"""The one way in which training and the reference pass turn pairs into log-probs.

Both use ``pair_logps`` with the same batch layout, so before the first update they agree to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from training.batch import Branch, PairBatch, collate
from training.config import TrainConfig
from training.data import PairDataset
from training.logps import FeatureCache, sequence_logps
from training.model import DTYPES


@dataclass(frozen=True, slots=True)
class PairLogps:
    """Summed response log-probs, float32 [B] each; ``corrupted`` is None where it was not asked for."""

    chosen: Tensor
    rejected: Tensor
    corrupted: Tensor | None


@dataclass(frozen=True)
class Policy:
    """A model, how its forward runs, and the features it may keep."""

    model: nn.Module
    device: torch.device
    dtype: torch.dtype
    share_images: bool
    cache: FeatureCache | None

    def batch(self, dataset: PairDataset, indices: Sequence[int], branches: Sequence[Branch]) -> PairBatch:
        """Collate on the CPU, skipping the images whose features are kept."""
        return collate(dataset, indices, branches, self.cache.features if self.cache else ())

    def logps(self, batch: PairBatch) -> Tensor:
        """[branches, B], float32."""
        sums = sequence_logps(self.model, batch.to(self.device), self.dtype, self.share_images, self.cache)
        return sums.reshape(len(batch.branches), len(batch.pairs))


def make_policy(model: nn.Module, device: torch.device, config: TrainConfig) -> Policy:
    """The policy as the configuration describes it, on ``device``."""
    cache = FeatureCache.half_of_free_memory(device) if config.cache_image_features else None
    return Policy(model.to(device), device, DTYPES[config.dtype], config.share_image_features, cache)


def pair_logps(policy: Policy, dataset: PairDataset, indices: Sequence[int], config: TrainConfig) -> PairLogps:
    """Log-probs of the given pairs.

    With mDPO all three responses go through one forward pass. The corrupted one of ``probe_image`` is only measured,
    so it takes a pass of its own that keeps no graph.
    """
    if config.objective == "mdpo":
        chosen, rejected, corrupted = policy.logps(policy.batch(dataset, indices, ("chosen", "rejected", "corrupted")))
        return PairLogps(chosen, rejected, corrupted)
    chosen, rejected = policy.logps(policy.batch(dataset, indices, ("chosen", "rejected")))
    if not config.probe_image:
        return PairLogps(chosen, rejected, None)
    with torch.no_grad():
        (corrupted,) = policy.logps(policy.batch(dataset, indices, ("corrupted",)))
    return PairLogps(chosen, rejected, corrupted)
