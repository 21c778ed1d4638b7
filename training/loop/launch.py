"""How a training is started, in this process or in ``workers: N``."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from pipeline.base.errors import PipelineError
from pipeline.base.files import TEMPORARY, write_text
from pipeline.base.hardware import Hardware, this_machine
from pipeline.base.lock import locked
from pipeline.base.openmp import sharing_cpus
from pipeline.base.progress import tell
from pipeline.base.sweep import beside, sweep_beside, sweep_output
from training.config import TrainConfig
from training.config.by_hardware import settled
from training.errors import TrainingError
from training.loop import costs, resume
from training.loop.train_costs import TrainCosts
from training.loop.trainer import TrainResult, finished_run, train
from training.loop.worker import LONGEST_WAIT, this_worker

#: What the first worker says on stderr; the process that started the workers repeats it.
LOG = "train.log"
#: What a folder beside that of a run is called in which its costs are found out, and the file that has them.
MEASURED, _COSTS = "measure", "costs.json"
#: Seconds between two looks at it.
_LOOK_EVERY = 0.2


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
            sweep_output(config.output_dir)
            sweep_beside(config.output_dir, MEASURED)
        with sharing_cpus():
            return _run(config)


def _run(config: TrainConfig) -> TrainResult:
    from pipeline.running.pool import run_together

    torchrun = "WORLD_SIZE" in os.environ
    config, there = placement(config)
    # A head without a GPU leaves the work to those that have one, be it a single worker.
    elsewhere = there.gpus > 0 and not there.gpus_here
    if torchrun or (config.processes == 1 and not elsewhere):
        return train(config)
    if elsewhere:
        tell(f"this machine has no GPU: training on {config.processes} of the cluster's {there.gpus}")

    with _repeat(config.output_dir / LOG):
        try:
            run_together(_train, config, config.processes, config.output_dir / f".ray{TEMPORARY}", LONGEST_WAIT)
        except PipelineError as error:
            raise TrainingError(str(error)) from error
    return finished_run(config)


def placement(config: TrainConfig) -> tuple[TrainConfig, Hardware]:
    """The options with what the GPUs decide and what a run that goes on was begun in, and the GPUs. What nobody would
    expect is said."""
    from pipeline.running.pool import hardware

    there = _usable(this_machine() if "WORLD_SIZE" in os.environ else hardware())
    begun = resume.begun_dtype(config)
    if config.dtype == "auto" and begun is not None and begun != there.dtype:
        tell(
            f"{config.output_dir} was begun in {begun} and goes on in it; begun here it would be {there.dtype} "
            "(resume=never begins anew)"
        )
    return settled(config, there, begun), there


def _usable(there: Hardware) -> Hardware:
    """Without GPUs of this machine that torch cannot use, which is said."""
    if not there.gpus_here or torch.cuda.is_available():
        return there
    tell(
        f"warning: this machine has {there.gpus_here} GPUs, and torch {torch.__version__} cannot use them: training on "
        "the CPU; install a torch that is built for them"
    )
    return Hardware()


def measure(config: TrainConfig) -> TrainCosts:
    """What ``run`` would cost, found out by as many workers, in a folder beside that of the run, which is removed.

    Raises:
        TrainingError: that of the worker that failed.
    """
    with beside(config.output_dir, MEASURED) as folder, sharing_cpus():
        config, there = placement(config.model_copy(update={"output_dir": folder}))
        elsewhere = there.gpus > 0 and not there.gpus_here
        if (config.processes == 1 and not elsewhere) or "WORLD_SIZE" in os.environ:
            return costs.measure(config)
        from pipeline.running.pool import run_together

        try:
            run_together(_measure, config, config.processes, folder / f".ray{TEMPORARY}", LONGEST_WAIT)
        except PipelineError as error:
            raise TrainingError(str(error)) from error
        return TrainCosts(**json.loads((folder / _COSTS).read_text()))


def _measure(config: TrainConfig) -> None:
    """What each Ray Train worker does."""
    with sharing_cpus():
        measured = costs.measure(config)
    if this_worker().main:
        write_text(config.output_dir / _COSTS, json.dumps(asdict(measured)))


def _train(config: TrainConfig) -> None:
    """What each Ray Train worker does."""
    with sharing_cpus(), contextlib.ExitStack() as stack:
        if this_worker().main:
            log = stack.enter_context((config.output_dir / LOG).open("a", buffering=1))
            stack.enter_context(contextlib.redirect_stderr(log))
        train(config)


@contextlib.contextmanager
def _repeat(path: Path) -> Iterator[None]:
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
