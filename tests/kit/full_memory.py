"""A GPU whose memory holds passes of so many pairs and no more, pretended: what runs out says so as torch does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch

from training.forward import policy as forward

Where = Literal["reference", "forward", "backward"]


class _Full(torch.autograd.Function):
    """A value whose gradient has no room."""

    @staticmethod
    def forward(_: Any, value: torch.Tensor) -> torch.Tensor:
        return value.clone()

    @staticmethod
    def backward(_: Any, __: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nprocess 1 has 79 GiB in use")


class FullMemory:
    """``limit`` pairs fit into a pass ``where``; ``after`` so many larger ones fit all the same. ``refused`` counts."""

    def __init__(self, limit: int, where: Where, after: int = 0) -> None:
        self.limit, self.where, self.after, self.refused = limit, where, after, 0
        self._real = forward._logps

    def __call__(self, policy: Any, dataset: Any, indices: Sequence[int], wanted: Any) -> Any:
        learns = torch.is_grad_enabled()
        if len(indices) <= self.limit or learns == (self.where == "reference"):
            return self._real(policy, dataset, indices, wanted)
        self.after -= 1
        if self.after >= 0:
            return self._real(policy, dataset, indices, wanted)
        self.refused += 1
        if self.where != "backward":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nprocess 1 has 79 GiB in use")
        return {name: _Full.apply(value) for name, value in self._real(policy, dataset, indices, wanted).items()}

    def install(self) -> FullMemory:
        """In place of the trainer's own forward, in this process."""
        forward._logps = self  # type: ignore[assignment]
        return self

    def remove(self) -> None:
        forward._logps = self._real
