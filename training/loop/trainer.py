"""Preference training of a vision-language model, readable from top to bottom.

Workers (``training.loop.launch`` starts them) share the pairs of a step; their gradients are summed, so the number of
workers changes nothing but the time. With ``sharding=fsdp`` each also holds only its part of weights and optimiser.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate.utils import set_seed
from torch import Tensor, nn

from pipeline.base.progress import ProgressBar, tell
from training.config import TrainConfig
from training.config.steps import steps_per_epoch, total_steps
from training.data.identity import Identity, Start, start_of, trained_rows
from training.data.pairs import PairDataset
from training.data.schedule import Pass, mean_chosen_tokens, passes, read_in, window_of
from training.forward.check_features import check_features
from training.forward.model import DTYPES, load_processor, prepare_tuning, read_positions, trainable
from training.forward.policy import Policy, make_policy, pair_logps, response_lengths
from training.loop import checkpoint, diverge, inputs, log, on_cpu, pass_size, reference, resume, spread
from training.loop.checkpoint import Progress
from training.loop.evaluate_loss import HeldOut, evaluate
from training.loop.export import export
from training.loop.inputs import Inputs
from training.loop.log import MetricsLog, progress_note
from training.loop.optimise import cosine_with_warmup, make_optimizer
from training.loop.pass_size import Passes
from training.loop.reference import Reference
from training.loop.sharding import clip, is_sharded, shard, sum_gradients, whole
from training.loop.step_zero import check_step_zero
from training.loop.sums import Sums
from training.loop.worker import Worker, this_worker
from training.loss import sft
from training.loss.measure import measure, metric_names


@dataclass(frozen=True, slots=True)
class TrainResult:
    """``model`` is the folder to load or serve; ``metrics`` the last line of ``metrics.jsonl``, that of ``steps``."""

    model: Path
    steps: int
    metrics: dict[str, float]


def train(config: TrainConfig) -> TrainResult:
    """Run or resume a training run and export the model to ``config.output_dir / "model"``; every worker calls this.

    Raises a ``TrainingError`` (config, model, data, reference, checkpoint, step zero) whose message holds the remedy.
    """
    worker = this_worker()
    set_seed(config.seed)  # the adapters' initial values, equal in every process
    log.check_wandb(config)
    config.output_dir.mkdir(parents=True, exist_ok=True)
    checkpoints = config.output_dir / "checkpoints"
    worker.wait()

    processor = load_processor(config)
    # Before the weights: what is wrong with a row shows in the time that rows take.
    data = inputs.read(config, processor, read_positions(config), visible=worker.main, worker=worker)
    model = spread.load(config, worker)
    start = spread.by_first(lambda: start_of(model, processor), worker)
    identity = Identity(start, {key: trained_rows(rows, config) for key, rows in data.all.items()})
    if resume.settle(config, identity, worker):
        return finished_run(config)
    if worker.main:
        inputs.say_skipped(data, config.output_dir)
        size = sum(parameter.numel() for parameter in model.parameters())
        if worker.device.type == "cpu" and size >= on_cpu.LARGE:
            tell(on_cpu.notice(size, data.train, config, on_cpu.measured_speed() * worker.world) or "")
    model = prepare_tuning(model, config)
    chosen = pass_size.settle(config, model, data.train, worker)
    sized = Passes(config, chosen, model, worker)
    policy = place(model, data, config, worker)
    steps = total_steps(len(data.train.pairs), config)
    read = read_in(steps, len(data.train.pairs), config)
    ref = make_reference(policy, data.train, config.dataset, config, start, worker, sized, read)
    held_out = None
    if data.held_out is not None and config.eval_dataset is not None:
        held_out = HeldOut(
            data.held_out, make_reference(policy, data.held_out, config.eval_dataset, config, start, worker, sized)
        )

    parameters = trainable(policy.model)
    optimizer = make_optimizer(policy.model, config)
    scheduler = cosine_with_warmup(optimizer, steps, config.warmup_ratio)
    progress = checkpoint.restore(checkpoints, parameters, optimizer, scheduler)
    if progress.step == 0:
        check_step_zero(policy, data.train, ref, config, worker, sized)
    about, best = resume.about(config, identity), progress.best
    names = (*metric_names(config), *((sft.NAME,) if config.sft is not None else ()))
    # The first worker carries what the checkpoint had not logged yet.
    sums = Sums(names, worker, progress.sums, progress.count) if worker.main else Sums(names, worker)

    with (
        MetricsLog(config, progress.step, active=worker.main) as metrics_log,
        ProgressBar("train", steps, progress.step, visible=worker.main) as bar,
    ):
        for step in range(progress.step, steps):
            if best.is_exhausted(config):
                break
            loss = backward_in_memory(policy, data, ref, step, sums, optimizer, sized, worker)
            sum_gradients(parameters.values(), worker)
            norm = clip(parameters.values(), config.max_grad_norm)
            diverge.check_step(loss, norm, step, policy, data, ref, sized.config, worker)
            learning_rate = scheduler.get_last_lr()[0]
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad(set_to_none=True)
            bar.advance()

            done = step + 1
            measured: dict[str, float] = {}
            if held_out is not None and (done % config.eval_steps == 0 or done == steps):
                measured = evaluate(policy, held_out, config, worker, sized)
                best = best.after(done, measured["eval/loss"])
                if config.patience is not None and best.step == done:
                    checkpoint.save_best(checkpoints, done, parameters, worker)
            ends = done == steps or best.is_exhausted(config)
            saves = ends or done % config.save_steps == 0
            if saves:
                diverge.check_weights(parameters, done, config, worker)
            if measured or ends or done % config.logging_steps == 0:
                line = {
                    **sums.means(),
                    "learning_rate": float(learning_rate),
                    "grad_norm": float(norm),
                    "epoch": done / steps_per_epoch(len(data.train.pairs), config),
                    **measured,
                }
                sums = Sums(names, worker)
                metrics_log.write(done, line)
                bar.note(progress_note(line))
            if saves:
                kept = Progress(done, *sums.total(), best)
                checkpoint.save(checkpoints, kept, parameters, optimizer, scheduler, about, worker)
                worker.wait()

    policy.images.close()
    if config.patience is not None and best.step:
        checkpoint.load_best(checkpoints, best.step, parameters)
        if worker.main:
            print(f"the lowest eval/loss, {best.loss:.4f}, is that of step {best.step}", file=sys.stderr, flush=True)
    trained = None
    if is_sharded(parameters) or config.quantization is not None:
        trained = {name: whole(value, keep=worker.main) for name, value in parameters.items()}
    if worker.main:
        export(policy.model, processor, config, trained)
        resume.mark_trained(config, identity)
    worker.wait()
    return finished_run(config)


def place(model: nn.Module, data: Inputs, config: TrainConfig, worker: Worker) -> Policy:
    """The model on its device, split if it is to be, and how its forward runs; checks that images fit the model."""
    sharded = config.sharding == "fsdp" and worker.world > 1
    weights = spread.hold(model, config, worker)
    if sharded:
        shard(model, worker, DTYPES[config.precision])
        # Workers gather the head together, so each must call it equally often: once a pass, not once a chunk.
        config = config.model_copy(update={"head_chunk": None})
    spread.fill(model, weights, worker)
    del weights
    for dataset in data.all.values():
        check_features(model, dataset, worker.device)
    policy = make_policy(model, worker.device, config, data.train)
    if worker.main:
        tell(policy.note)
    if sharded:
        # FSDP takes note of what moves in its first forward: adapters must be on in it, and the reference's are off.
        with torch.no_grad():
            pair_logps(policy, data.train, [0], config)
    return policy


def make_reference(
    policy: Policy,
    dataset: PairDataset,
    name: str,
    config: TrainConfig,
    start: Start,
    worker: Worker,
    sized: Passes | None = None,
    places: Sequence[int] | None = None,
) -> Reference:
    """The reference's log-probs of the pairs at ``places`` (default: all): computed once and stored, or with
    ``cache_reference=false`` for every batch."""
    if not config.cache_reference:
        return reference.live(policy, dataset, config)
    folder = reference.folder_of(config, name)
    count = len(dataset.pairs if places is None else places)
    with ProgressBar("reference", count, unit="pair", visible=worker.main) as bar:
        return reference.load_or_compute(policy, dataset, config, start, folder, worker, bar.advance, sized, places)


def backward_in_memory(
    policy: Policy,
    data: Inputs,
    ref: Reference,
    step: int,
    sums: Sums,
    optimizer: torch.optim.Optimizer,
    sized: Passes,
    worker: Worker,
) -> Tensor:
    """``backward``, and where memory runs out on any worker all of it again in smaller passes: of what a failed try has
    added to gradients and ``sums`` nothing is left."""
    before = sums.snapshot()

    def undo() -> None:
        optimizer.zero_grad(set_to_none=True)
        sums.restore(before)

    def share(config: TrainConfig) -> Tensor:
        return backward(policy, data, ref, step, sums, config, worker)

    return sized.run(share, f"step {step + 1}", undo)


def backward(
    policy: Policy, data: Inputs, ref: Reference, step: int, sums: Sums, config: TrainConfig, worker: Worker
) -> Tensor:
    """Run this worker's share of an optimiser step: gradients are added to the parameters, metrics to ``sums``.

    Returns its part of the loss, float64, detached.
    The loss is a mean over the pairs of the whole step, so how it is cut into passes does not change the gradient.
    """
    window = window_of(step, len(data.train.pairs), config)
    mean_chosen = mean_chosen_tokens(data.train, window)
    total = torch.zeros((), dtype=torch.float64, device=policy.device)
    share = passes(data.train, window, config, worker.rank, worker.world)

    def then() -> list[Pass]:
        following = window_of(step + 1, len(data.train.pairs), config)
        return passes(data.train, following, config, worker.rank, worker.world) if data.sft is None else []

    for indices, counts in policy.over(data.train, share, config.branches, then):
        logps, ref_logps = pair_logps(policy, data.train, indices, config), ref(indices)
        lengths = response_lengths(data.train, indices, config, policy.device)
        measured = measure(logps, ref_logps, lengths, mean_chosen, config)
        loss = measured.loss.sum() * counts / len(window)
        torch.autograd.backward(loss)
        total += loss.detach()
        if counts:
            sums.add(measured.metrics, len(indices))
    if data.sft is None or config.sft is None:
        return total
    rows = sft.rows_of(step, len(data.sft.pairs), config)
    tokens = sum(len(data.sft.pairs[row].chosen_ids) for row in rows)
    share = passes(data.sft, rows, config, worker.rank, worker.world)
    for indices, counts in policy.over(data.sft, share, ("chosen",)):
        mean = sft.negative_logps(policy, data.sft, indices).sum() / tokens
        loss = config.sft.weight * mean * counts
        torch.autograd.backward(loss)
        total += loss.detach()
        if counts:  # metrics are means over pairs, and every pair of the step has this one
            shared = mean.detach() * len(window)
            sums.add({sft.NAME: shared, "loss": config.sft.weight * shared})
    return total


def finished_run(config: TrainConfig) -> TrainResult:
    """The result of a run that has ended, as its folder tells it."""
    last = last_metrics(config.output_dir)
    return TrainResult(
        config.output_dir / "model",
        int(last.get("step", 0)),
        {name: value for name, value in last.items() if name != "step"},
    )


def last_metrics(output_dir: Path) -> Mapping[str, float]:
    """The last line of ``metrics.jsonl``; empty if there is none."""
    path = output_dir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return json.loads(lines[-1]) if lines else {}
