"""What a training would do: its rows read and checked as in earnest, and no weights loaded."""

from __future__ import annotations

from collections import Counter

from pipeline.base.amounts import duration, megabytes
from training.config import TrainConfig
from training.config.steps import total_steps
from training.data.identity import trained_rows
from training.data.pairs import PairDataset
from training.forward.model import load_processor, read_positions
from training.forward.saved_model import notes, require_fitting
from training.loop import inputs, launch, resume
from training.loop.launch import placement
from training.loop.train_costs import TrainCosts


def rehearse(config: TrainConfig, measured: bool = False) -> list[str]:
    """Lines for people; with ``measured``, also how long it takes, from a few steps that are taken for real. Nothing is
    kept.

    Raises:
        TrainingError: the model has no processor, an option does not go with it, or a dataset or a row of it cannot be
            used.
        EngineError: there is no such model.
    """
    require_fitting(config)
    config, there = placement(config)
    data = inputs.read(config, load_processor(config), read_positions(config))
    lines = [f"note: {note}" for note in notes(config)]
    lines += [line for key, dataset in data.all.items() for line in _lines(key, dataset)]
    pairs = data.train.pairs
    tokens = sum(pair.tokens for pair in pairs)
    lines.append(
        f"{total_steps(len(pairs), config):,} optimiser steps: {config.epochs} epochs of {len(pairs):,} pairs, "
        f"{config.batch_size} a step; {tokens:,} tokens an epoch, the longer answer of each pair counted"
    )
    where = f"{config.processes} of {there.gpus} GPUs" if there.gpus else "the CPU"
    lines.append(f"in {config.precision} on {where}")
    lines.append(resume.expectation(config, {key: trained_rows(rows, config) for key, rows in data.all.items()}))
    if measured:
        lines += _foretold(launch.measure(config), config, len(data.train.rows), len(pairs))
    return lines


def _foretold(costs: TrainCosts, config: TrainConfig, rows: int, pairs: int) -> list[str]:
    seconds = costs.start + costs.seconds(config, rows, pairs)
    lines = [
        f"time: {duration(seconds)}: {costs.step * config.batch_size:.3g} s a step of {config.batch_size} pairs, "
        f"{costs.start + costs.ready + costs.first:.1f} s to start (measured)",
        f"disk: {megabytes(costs.disk(config, pairs))}",
    ]
    if costs.gpu_bytes is not None:
        hours = seconds / 3600 * (config.workers if isinstance(config.workers, int) else 1)
        lines.append(f"GPU hours: {hours:.3g}; memory of a GPU: {costs.gpu_bytes / 2**30:.1f} GiB at most so far")
    return lines


def _lines(key: str, dataset: PairDataset) -> list[str]:
    images = {image for pair in dataset.pairs for image in pair.prompt.images}
    longest = max(pair.tokens for pair in dataset.pairs)
    counted = Counter(skipped.reason for skipped in dataset.skipped)
    first = f"{key}: {len(dataset.pairs):,} rows, {len(images):,} distinct images, the longest row {longest:,} tokens"
    return [first, *(f"{key}: {count:,} rows skipped: {reason}" for reason, count in counted.most_common(5))]
