"""Metrics between two lines of the log: running sums that stay on the device until somebody reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from training.loop.worker import Worker


class Sums:
    """Sums over pairs, float64. Adding waits for nothing; ``total`` and ``means`` wait for the device and all workers.

    ``start`` and ``count`` are what a checkpoint had not logged yet; give them to one worker only. Where they know
    nothing of one of ``names``, which was not measured then, the sums begin anew: all means are over the same pairs.
    """

    def __init__(
        self, names: Sequence[str], worker: Worker, start: Mapping[str, float] | None = None, count: int = 0
    ) -> None:
        self._worker = worker
        if start is None or not start.keys() >= set(names):
            start, count = dict.fromkeys(names, 0.0), 0
        self._count = count
        self._values = {name: torch.tensor(start[name], dtype=torch.float64, device=worker.device) for name in names}

    def add(self, metrics: Mapping[str, Tensor], pairs: int = 0) -> None:
        """Add the values of ``pairs`` more pairs, of any shape."""
        for name, values in metrics.items():
            self._values[name] += values.sum(dtype=torch.float64)
        self._count += pairs

    def snapshot(self) -> tuple[dict[str, Tensor], int]:
        """The sums as they are now, for ``restore``."""
        return {name: value.clone() for name, value in self._values.items()}, self._count

    def restore(self, snapshot: tuple[dict[str, Tensor], int]) -> None:
        """Take back what was added since."""
        values, self._count = snapshot
        self._values = {name: value.clone() for name, value in values.items()}

    def total(self) -> tuple[dict[str, float], int]:
        """Sums and the number of pairs, over all workers."""
        count = torch.tensor(float(self._count), dtype=torch.float64, device=self._worker.device)
        *values, pairs = self._worker.sum(torch.stack([*self._values.values(), count])).tolist()
        return dict(zip(self._values, values, strict=True)), int(pairs)

    def means(self) -> dict[str, float]:
        """Means over the pairs added so far, over all workers."""
        totals, pairs = self.total()
        return {name: value / pairs for name, value in totals.items()}
