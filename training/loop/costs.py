"""What a training costs: its rows, its weights and a few of its steps, taken for real and timed; nothing is kept."""

from __future__ import annotations

import itertools
import time
from dataclasses import replace

import datasets
import torch
from accelerate.utils import set_seed

from training.config import TrainConfig
from training.config.steps import total_steps
from training.data.identity import start_of
from training.data.pairs import PairDataset
from training.data.schedule import passes, window_of
from training.forward.model import load_processor, prepare_tuning, read_positions, trainable
from training.forward.policy import Policy, pair_logps
from training.loop import checkpoint, inputs, log, pass_size, reference, spread
from training.loop.checkpoint import Progress
from training.loop.export import export
from training.loop.optimise import cosine_with_warmup, make_optimizer
from training.loop.pass_size import Passes
from training.loop.reference import Reference
from training.loop.sharding import clip, is_sharded, sum_gradients, whole
from training.loop.sums import Sums
from training.loop.train_costs import TrainCosts
from training.loop.trainer import backward_in_memory, place
from training.loop.worker import Worker, this_worker
from training.loss.measure import metric_names

#: Steps that are timed behind the first, and seconds after which no more are: the one that is reached first.
STEPS, PATIENCE = 12, 20.0
#: Rows of each dataset that are read, in so many stretches.
ROWS, _STRETCHES = 1024, 8
#: Pairs whose reference is computed, at most.
REFERENCE_PAIRS = 256


def measure(config: TrainConfig) -> TrainCosts:
    """Every worker calls it, as it would ``training.loop.trainer.train``; writes into ``config.output_dir`` alone.

    Raises:
        TrainingError: what would keep the training from starting.
    """
    began = time.monotonic()
    set_seed(config.seed)
    processor = load_processor(config)
    start, worker, clock = time.process_time(), this_worker(), _Clock()
    sizes: list[int] = []

    def choose(rows: datasets.Dataset) -> datasets.Dataset:
        sizes.append(len(rows))
        return rows.select(blocks(len(rows)))

    data = inputs.read(config, processor, read_positions(config), worker.main, choose)
    read_rows = [len(dataset.rows) for dataset in data.all.values()]
    read = clock.lap() / sum(read_rows)
    log.check_wandb(config)
    from torch.utils.tensorboard import SummaryWriter  # noqa: F401  as the trainer does, which takes seconds

    model = spread.load(config, worker)
    spread.by_first(lambda: start_of(model, processor), worker)
    model = prepare_tuning(model, config)
    sized = Passes(config, pass_size.settle(config, model, data.train, worker), model, worker)
    policy = place(model, data, config, worker)
    config = sized.config
    parameters = trainable(policy.model)
    optimizer = make_optimizer(policy.model, config)
    scheduler = cosine_with_warmup(optimizer, total_steps(len(data.train.pairs), config), config.warmup_ratio)
    ready = clock.lap()
    per_reference = _reference_seconds(policy, data.train, config, worker)
    clock.lap()
    ref = reference.live(policy, data.train, config)
    laps: list[tuple[int, float]] = []
    for step in itertools.count():
        window = window_of(step, len(data.train.pairs), config)
        # What the trainer looks up is no part of a step.
        ref_of = _stored(ref, policy, data.train, window, config, worker) if config.cache_reference else ref
        clock.lap()
        sums = Sums(metric_names(config), worker)
        backward_in_memory(policy, data, ref_of, step, sums, optimizer, sized, worker)
        sum_gradients(parameters.values(), worker)
        clip(parameters.values(), config.max_grad_norm)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad(set_to_none=True)
        laps.append((len(window), clock.lap()))
        timed = [seconds for _, seconds in laps[1:]]
        if worker.gather([len(timed) >= STEPS or (len(timed) >= 2 and sum(timed) > PATIENCE)])[0]:
            break
    pairs = sum(size for size, _ in laps[1:])
    per_step = sum(seconds for _, seconds in laps[1:]) / pairs
    clock.lap()
    checkpoint.save(config.output_dir / "checkpoints", Progress(1), parameters, optimizer, scheduler, {}, worker)
    worker.wait()
    save = clock.lap()
    final = None
    if is_sharded(parameters) or config.quantization is not None:
        final = {name: whole(value, keep=worker.main) for name, value in parameters.items()}
    if worker.main:
        export(policy.model, processor, config, final)
    worker.wait()
    return TrainCosts(
        start=start,
        read=read,
        pairs_per_row=len(data.train.pairs) / read_rows[0],
        held_out=sizes[1] if data.held_out is not None else 0,
        others=sum(sizes[1:]),
        ready=ready,
        reference=per_reference,
        first=max(0.0, laps[0][1] - per_step * laps[0][0]),
        step=per_step,
        save=save,
        export=clock.lap(),
        model_bytes=_size(config, "model") + _size(config, "adapter"),
        checkpoint_bytes=_size(config, "checkpoints"),
        spent=time.monotonic() - began,
        gpu_bytes=torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
    )


def blocks(rows: int) -> list[int]:
    """Which of so many rows are read: stretches of them, spread over all, for a draw wants the rows of a prompt, which
    stand together.

    >>> len(blocks(100)), len(blocks(10**6)), blocks(10**6)[-1] > 800_000
    (100, 1024, True)
    """
    if rows <= ROWS:
        return list(range(rows))
    size, apart = ROWS // _STRETCHES, rows // _STRETCHES
    return [start * apart + at for start in range(_STRETCHES) for at in range(size)]


def _reference_seconds(policy: Policy, dataset: PairDataset, config: TrainConfig, worker: Worker) -> float:
    """Seconds of a pair, behind a pass that was not counted."""
    some = replace(dataset, pairs=dataset.pairs[:REFERENCE_PAIRS])
    clock, done, spent = _Clock(), 0, 0.0
    for number, (indices, _) in enumerate(passes(some, range(len(some.pairs)), config, worker.rank, worker.world)):
        clock.lap()
        with torch.no_grad():
            pair_logps(policy, some, indices, config)
        seconds = clock.lap()
        if number:
            done, spent = done + len(indices), spent + seconds
        else:
            first = (len(indices), seconds)
    return spent / (done * worker.world) if done else first[1] / (first[0] * worker.world)


def _stored(
    ref: Reference, policy: Policy, dataset: PairDataset, window: list[int], config: TrainConfig, worker: Worker
) -> Reference:
    """``ref`` of a step's passes, computed now."""
    known = {tuple(indices): ref(indices) for indices, _ in passes(dataset, window, config, worker.rank, worker.world)}
    # Where memory ran out, passes are other ones.
    return lambda indices: known[tuple(indices)] if tuple(indices) in known else ref(indices)


class _Clock:
    """Waits for the device: what a kernel takes is of the lap that started it. State: when the last lap ended."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def lap(self) -> float:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        before, self._last = self._last, time.monotonic()
        return self._last - before


def _size(config: TrainConfig, name: str) -> int:
    return sum(path.stat().st_size for path in (config.output_dir / name).rglob("*") if path.is_file())
