"""What a training costs, and from that how long one takes. Imports no torch: plans read it."""

from __future__ import annotations

from dataclasses import dataclass

from training.config import TrainConfig
from training.config.steps import KEEP, total_steps


@dataclass(frozen=True, slots=True)
class TrainCosts:
    """Seconds: ``start`` of the process until anything is read, ``read`` for a row, ``ready`` from all of them to the
    first step, reference aside, ``reference`` and ``step`` for a pair, ``first`` beyond that for the first step,
    ``save`` for a checkpoint, ``export`` for the model, and ``spent`` to find all this out.

    ``pairs_per_row`` are trained on of the rows of the dataset; ``held_out`` pairs are measured at each evaluation, and
    ``others`` are the rows of all datasets but the first. ``model_bytes`` and ``checkpoint_bytes`` are what lies on the
    disk, ``gpu_bytes`` the most that was used of a GPU (None without one).
    """

    start: float
    read: float
    pairs_per_row: float
    held_out: int
    others: int
    ready: float
    reference: float
    first: float
    step: float
    save: float
    export: float
    model_bytes: int
    checkpoint_bytes: int
    spent: float
    gpu_bytes: int | None = None

    def seconds(self, config: TrainConfig, rows: int, pairs: int) -> float:
        """Of a training on ``pairs`` of ``rows``, without ``start``."""
        steps = total_steps(pairs, config)
        evaluations = -(-steps // config.eval_steps) if config.eval_dataset is not None else 0
        trained = min(steps * config.batch_size, config.epochs * pairs)
        looked_up = (min(pairs, trained) + self.held_out) if config.cache_reference else 0
        return (
            self.read * (rows + self.others)
            + self.ready
            + self.first
            + self.reference * (looked_up + evaluations * self.held_out)
            + self.step * trained
            + self.save * -(-steps // config.save_steps)
            + self.export
        )

    def disk(self, config: TrainConfig, pairs: int) -> int:
        """Bytes: the newest checkpoints, and the model."""
        kept = min(KEEP, -(-total_steps(pairs, config) // config.save_steps))
        return kept * self.checkpoint_bytes + self.model_bytes
