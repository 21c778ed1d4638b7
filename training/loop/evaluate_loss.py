"""Evaluation while training: the objective's own loss and rewards on held-out pairs, and when to stop."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from training.config import TrainConfig
from training.data.pairs import PairDataset
from training.data.schedule import mean_chosen_tokens, passes
from training.forward.policy import Policy, pair_logps, response_lengths
from training.loop.pass_size import Passes
from training.loop.reference import Reference
from training.loop.sums import Sums
from training.loop.worker import Worker
from training.loss.measure import measure, metric_names


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Pairs that are not trained on, and their reference log-probs."""

    dataset: PairDataset
    ref: Reference


@dataclass(frozen=True, slots=True)
class Best:
    """The evaluation with the lowest loss so far; ``worse`` counts those after it. Step 0 says that there is none."""

    step: int = 0
    loss: float = math.inf
    worse: int = 0

    def after(self, step: int, loss: float) -> Best:
        """With one more evaluation; NaN is never better.

        >>> Best(10, 0.5).after(20, 0.6).worse
        1
        """
        return Best(step, loss) if loss < self.loss else Best(self.step, self.loss, self.worse + 1)

    def is_exhausted(self, config: TrainConfig) -> bool:
        """Whether ``patience`` is at its end."""
        return config.patience is not None and self.worse >= config.patience


@torch.no_grad()
def evaluate(
    policy: Policy, held_out: HeldOut, config: TrainConfig, worker: Worker, sized: Passes | None = None
) -> dict[str, float]:
    """Means over all held-out pairs of what ``measure`` returns: ``eval/loss``, ``eval/rewards/margins``, ..."""
    dataset = held_out.dataset
    everyone = range(len(dataset.pairs))
    mean_chosen = mean_chosen_tokens(dataset, everyone)  # once: it reads every pair

    def share(config: TrainConfig) -> Sums:
        sums = Sums(metric_names(config), worker)
        each = passes(dataset, everyone, config, worker.rank, worker.world)
        for indices, counts in policy.over(dataset, each, config.branches):
            measured = measure(
                pair_logps(policy, dataset, indices, config),
                held_out.ref(indices),
                response_lengths(dataset, indices, config, policy.device),
                mean_chosen,
                config,
            )
            if counts:
                sums.add(measured.metrics, len(indices))
        return sums

    sums = sized.run(share, "the evaluation") if sized is not None else share(config)
    return {f"eval/{name}": value for name, value in sums.means().items()}
