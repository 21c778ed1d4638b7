"""Which of several processes that train one model this is, and how they talk.

The workers share the pairs of a step and add up their gradients, so their number changes nothing but the time. One
process that is alone is a ``Worker`` too; nothing else in the trainer asks how many there are.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

#: How long workers wait for each other before they take one for dead, which its end tells them at once anyway: the
#: first one alone writes the model, which takes longer than the ten minutes that NCCL has by default.
LONGEST_WAIT = timedelta(hours=12)


@dataclass(frozen=True, slots=True)
class Worker:
    """This process: number ``rank`` of ``world``, on ``device``. Every method but ``main`` must be called by all."""

    device: torch.device
    rank: int = 0
    world: int = 1

    @property
    def main(self) -> bool:
        """Whether this is the one that writes files."""
        return self.rank == 0

    def sum(self, value: Tensor) -> Tensor:
        """``value`` added up over all workers, in place."""
        if self.world > 1:
            dist.all_reduce(value)
        return value

    def gather(self, items: list[Any]) -> list[Any]:
        """Everyone's items, those of rank 0 first."""
        if self.world == 1:
            return items
        parts: list[Any] = [None] * self.world
        dist.all_gather_object(parts, items)
        return [item for part in parts for item in part]

    def wait(self) -> None:
        """Until all are here."""
        if self.world > 1:
            dist.barrier()


def this_worker() -> Worker:
    """This process. Ray Train has made its process group already; under ``torchrun`` it is made now."""
    cuda = torch.cuda.is_available()
    if not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if cuda:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if cuda else "gloo", timeout=LONGEST_WAIT)
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    return Worker(device, dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Worker(device)
