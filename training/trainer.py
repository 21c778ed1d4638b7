"""Preference training of a vision-language model, readable from top to bottom.

Workers (``training.workers`` starts them) share the pairs of a step; their gradients are summed, so the number of
workers changes nothing but the time. With ``sharding=fsdp`` each also holds only its part of weights and optimiser.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn

from pipeline.export import save_for_vllm
from training import checkpoint, formats, reference
from training.checkpoint import Progress
from training.config import TrainConfig
from training.data import PairDataset, prepare
from training.errors import StepZeroError
from training.log import MetricsLog, ProgressBar
from training.measure import Measured, measure, metric_names
from training.model import DTYPES, check_features, load_model, positions, prepare_tuning, trainable
from training.optimise import cosine_with_warmup, make_optimizer
from training.policy import Policy, make_policy, pair_logps, response_lengths
from training.reference import Reference
from training.schedule import shares, steps_per_epoch, total_steps, window_of

#: How far policy and reference may differ before the first update, in nats per response token: rounding between two
#: batches of different padding stays two orders below (float32: 1e-6), a wrong reference lies orders above (0.1).
STEP_ZERO_TOLERANCE = {"float32": 1e-4, "bfloat16": 2e-2}


@dataclass(frozen=True, slots=True)
class TrainResult:
    """``model`` is the folder to load or serve; ``metrics`` the last line of ``metrics.jsonl``."""

    model: Path
    steps: int
    metrics: dict[str, float]


def train(config: TrainConfig) -> TrainResult:
    """Run or resume a training run and export the model to ``config.output_dir / "model"``.

    Raises a ``TrainingError`` (config, model, data, reference, checkpoint, step zero) whose message holds the remedy.
    """
    accelerator = Accelerator()
    set_seed(config.seed)  # the adapters' initial values, equal in every process
    rank, world, main = accelerator.process_index, accelerator.num_processes, accelerator.is_main_process
    config.output_dir.mkdir(parents=True, exist_ok=True)
    checkpoints = config.output_dir / "checkpoints"
    if not config.resume and main:
        checkpoint.clear(checkpoints)
        (config.output_dir / "metrics.jsonl").unlink(missing_ok=True)
    accelerator.wait_for_everyone()

    rows = formats.open(config.dataset, config.dataset_format, config.dataset_split, config.image_root)
    model, processor = load_model(config)
    with ProgressBar("tokenise", len(rows), unit="row", visible=main) as bar:
        dataset = prepare(rows, processor, config, positions(model), bar.advance)
    if main:
        say_skipped(dataset, config.output_dir)
    start = reference.weights_digest(model)
    check_features(model, dataset, accelerator.device)
    policy = make_policy(prepare_tuning(model, config), accelerator.device, config, dataset)
    if main:
        print(policy.note, file=sys.stderr, flush=True)
    ref = make_reference(policy, dataset, config, start, rank, world, main)

    parameters = trainable(policy.model)
    steps = total_steps(len(dataset.pairs), config)
    optimizer = make_optimizer(policy.model, config)
    scheduler = cosine_with_warmup(optimizer, steps, config.warmup_ratio)
    progress = checkpoint.restore(checkpoints, parameters, optimizer, scheduler, config, start)
    # The first process carries what the checkpoint had not logged yet.
    sums = zero_sums(config, policy.device, progress.sums if main else None)
    count = progress.count if main else 0
    last: dict[str, float] = {}

    with (
        MetricsLog(config.output_dir, progress.step, active=main) as log,
        ProgressBar("train", steps, progress.step, visible=main) as bar,
    ):
        for step in range(progress.step, steps):
            window = window_of(step, len(dataset.pairs), config)
            mean_chosen = sum(len(dataset.pairs[index].chosen_ids) for index in window) / len(window)
            for part in shares(dataset, window, config, world)[rank]:
                if not part:
                    continue
                measured = measure(
                    pair_logps(policy, dataset, part, config),
                    ref(part),
                    response_lengths(dataset, part, config, policy.device),
                    mean_chosen,
                    config,
                )
                if step == 0:
                    check_step_zero(measured, dataset, part, config)
                # Normalised by the pairs of the whole window, so the micro-batch size does not change the gradient.
                torch.autograd.backward(measured.loss.sum() / len(window))
                add_metrics(sums, measured.metrics)
                count += len(part)
            sum_gradients(accelerator, parameters)
            norm = nn.utils.clip_grad_norm_(parameters.values(), config.max_grad_norm)
            learning_rate = scheduler.get_last_lr()[0]
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad(set_to_none=True)
            bar.advance()

            done = step + 1
            if done % config.logging_steps == 0 or done == steps:
                last = means(accelerator, sums, count) | {
                    "learning_rate": float(learning_rate),
                    "grad_norm": float(norm),
                    "epoch": done / steps_per_epoch(len(dataset.pairs), config),
                }
                sums, count = zero_sums(config, policy.device), 0
                log.write(done, last)
                bar.note(last)
            if done % config.save_steps == 0 or done == steps:
                if main:
                    kept = Progress(done, {name: value.item() for name, value in sums.items()}, count)
                    checkpoint.save(checkpoints, kept, parameters, optimizer, scheduler, config, start)
                accelerator.wait_for_everyone()

    if main:
        export(policy.model, processor, config)
    accelerator.wait_for_everyone()
    return TrainResult(config.output_dir / "model", steps, last or last_metrics(config.output_dir))


def say_skipped(dataset: PairDataset, output_dir: Path) -> None:
    """Write rows that are not trained on, with their reasons, to ``skipped.jsonl``, and say how many they are."""
    path = output_dir / "skipped.jsonl"
    path.unlink(missing_ok=True)
    if dataset.skipped:
        lines = [json.dumps({"row": skipped.name, "reason": skipped.reason}) + "\n" for skipped in dataset.skipped]
        path.write_text("".join(lines))
        print(
            f"{len(lines)} of {len(lines) + len(dataset.pairs)} rows skipped; {path} names each",
            file=sys.stderr,
            flush=True,
        )


def make_reference(
    policy: Policy, dataset: PairDataset, config: TrainConfig, start: str, rank: int, world: int, visible: bool
) -> Reference:
    """The reference's log-probs: computed once and stored, or with ``cache_reference=false`` for every batch."""
    if not config.cache_reference:
        return reference.live(policy, dataset, config)
    folder = reference.folder_of(config)
    with ProgressBar("reference", len(dataset.pairs), unit="pair", visible=visible) as bar:
        return reference.load_or_compute(policy, dataset, config, start, folder, rank, world, bar.advance)


def check_step_zero(measured: Measured, dataset: PairDataset, indices: Sequence[int], config: TrainConfig) -> None:
    """Before the first update every reward must be 0: |reward| <= beta * tolerance * response tokens.

    Raises ``StepZeroError`` naming the worst pair: then the reference does not belong to this model.
    """
    pairs = [dataset.pairs[index] for index in indices]
    tolerance = STEP_ZERO_TOLERANCE[config.dtype]
    worst = (0.0, "", "")
    for name in ("rewards/chosen", "rewards/rejected", "rewards/chosen_corrupted"):
        for pair, value in zip(pairs, measured.metrics.get(name, torch.empty(0)).tolist(), strict=False):
            tokens = len(pair.rejected_ids if name == "rewards/rejected" else pair.chosen_ids)
            off = abs(value) / (config.beta * tokens)
            if not off <= worst[0]:  # also true for NaN
                worst = (off, pair.name, name)
    if not worst[0] <= tolerance:
        raise StepZeroError(
            f"before the first update {worst[2]} of {worst[1]} is {worst[0]:.3g} nats per token away from 0 (at most "
            f"{tolerance:g} in {config.dtype}): policy and reference are not the same model. Delete "
            f"{reference.folder_of(config)} to compute the reference again; if it stays, the model's forward is "
            "not deterministic"
        )


def zero_sums(config: TrainConfig, device: torch.device, start: Mapping[str, float] | None = None) -> dict[str, Tensor]:
    """Running sums of every metric, float64 scalars on ``device``, from ``start`` or 0."""
    values = {name: (start or {}).get(name, 0.0) for name in metric_names(config)}
    return {name: torch.tensor(value, dtype=torch.float64, device=device) for name, value in values.items()}


def add_metrics(sums: dict[str, Tensor], metrics: dict[str, Tensor]) -> None:
    """Add per-pair values to running sums, in place and on the device: no synchronisation between logging steps."""
    for name, values in metrics.items():
        sums[name] += values.sum(dtype=torch.float64)


def means(accelerator: Accelerator, sums: dict[str, Tensor], count: int) -> dict[str, float]:
    """Per-pair means over the steps since the last line, over all processes."""
    pairs_here = torch.tensor(float(count), dtype=torch.float64, device=accelerator.device)
    stacked = torch.stack([*sums.values(), pairs_here])
    *totals, pairs = accelerator.reduce(stacked, "sum").tolist()
    return {name: total / pairs for name, total in zip(sums, totals, strict=True)}


def sum_gradients(accelerator: Accelerator, parameters: dict[str, nn.Parameter]) -> None:
    """Add up gradients over processes. By hand rather than by DDP, as the processes' pairs may be unequal in number."""
    if accelerator.num_processes > 1:
        for parameter in parameters.values():
            grad = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
            parameter.grad = accelerator.reduce(grad, "sum")


def export(model: nn.Module, processor: Any, config: TrainConfig) -> None:
    """Write ``model/`` (adapters merged in) and, with LoRA, ``adapter/``; merging changes ``model``."""
    final: Any = model
    if config.tuning == "lora":
        final.save_pretrained(config.output_dir / "adapter")
        final = final.merge_and_unload()
    save_for_vllm(final, processor, config.output_dir / "model", DTYPES[config.dtype])


def last_metrics(output_dir: Path) -> dict[str, float]:
    """The last line of ``metrics.jsonl`` without its step; empty if there is none."""
    path = output_dir / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return {key: value for key, value in json.loads(lines[-1]).items() if key != "step"} if lines else {}
