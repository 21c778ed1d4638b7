"""Several processes that train one model: which of them this is, how they talk, and how ``workers: N`` are started.

The workers share the pairs of a step and add up their gradients, so their number changes nothing but the time. One
process that is alone is a ``Worker`` too; nothing else in the trainer asks how many there are.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.errors import PipelineError
from pipeline.files import TEMPORARY
from pipeline.lock import locked
from pipeline.sweep import sweep
from training.config import TrainConfig
from training.errors import TrainingError

if TYPE_CHECKING:
    from training.trainer import TrainResult

#: What the first worker says on stderr; the process that started the workers repeats it.
LOG = "train.log"
#: Seconds between two looks at it.
_LOOK_EVERY = 0.2


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
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, items)
        return [item for part in found for item in part]

    def wait(self) -> None:
        """Until all are here."""
        if self.world > 1:
            dist.barrier()


def here() -> Worker:
    """This process. Ray Train has made its process group already; under ``torchrun`` it is made now."""
    cuda = torch.cuda.is_available()
    if not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        if cuda:
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        dist.init_process_group("nccl" if cuda else "gloo")
    device = torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")
    return Worker(device, dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else Worker(device)


def run(config: TrainConfig) -> TrainResult:
    """Train in this process, or with ``workers: N`` in N Ray Train workers; under ``torchrun`` the processes are there.

    What the first worker prints is repeated here. The output folder is held meanwhile, by one process.

    Raises:
        InUse: another process trains in the same folder.
        TrainingError: that of the worker that failed.
    """
    first = os.environ.get("RANK", "0") == "0"  # of those that torchrun has started
    with locked(config.output_dir, "python -m training.run") if first else contextlib.nullcontext():
        if first:
            sweep(config.output_dir, swapped=("model", "adapter"), apart=("tensorboard", "wandb"))
        return _run(config)


def _run(config: TrainConfig) -> TrainResult:
    from training.trainer import finished, train

    if config.workers == 1 or "WORLD_SIZE" in os.environ:
        return train(config)
    from pipeline.pool import run_together

    with _repeated(config.output_dir / LOG):
        try:
            run_together(_train, config, config.workers, config.output_dir / f".ray{TEMPORARY}")
        except PipelineError as error:
            raise TrainingError(str(error)) from error
    return finished(config)


def _train(config: TrainConfig) -> None:
    """What each Ray Train worker does."""
    from training.trainer import train

    with contextlib.ExitStack() as stack:
        if here().main:
            log = stack.enter_context((config.output_dir / LOG).open("a", buffering=1))
            stack.enter_context(contextlib.redirect_stderr(log))
        train(config)


@contextlib.contextmanager
def _repeated(path: Path) -> Iterator[None]:
    """Print to stderr what is appended to ``path`` meanwhile."""
    path.touch()
    over = threading.Event()

    def follow() -> None:
        with path.open() as file:
            file.seek(0, os.SEEK_END)
            last = False
            while not last:
                last = over.wait(_LOOK_EVERY)  # one more look after the end
                if text := file.read():
                    print(text, end="", file=sys.stderr, flush=True)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
