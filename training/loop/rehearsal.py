"""What a training would do: its rows read and checked as in earnest, and no weights loaded."""

from __future__ import annotations

from collections import Counter

from training.config import TrainConfig
from training.config.steps import total_steps
from training.data.identity import rows_of
from training.data.pairs import PairDataset
from training.forward.model import load_processor, read_positions
from training.loop import inputs, resume
from training.loop.launch import placement


def rehearse(config: TrainConfig) -> list[str]:
    """Lines for people. Nothing is written.

    Raises:
        TrainingError: the model has no processor, or a dataset or a row of it cannot be used.
    """
    config, there = placement(config)
    data = inputs.read(config, load_processor(config), read_positions(config))
    lines = [line for key, dataset in data.all.items() for line in _lines(key, dataset)]
    pairs = data.train.pairs
    tokens = sum(pair.tokens for pair in pairs)
    lines.append(
        f"{total_steps(len(pairs), config):,} optimiser steps: {config.epochs} epochs of {len(pairs):,} pairs, "
        f"{config.batch_size} a step; {tokens:,} tokens an epoch, the longer answer of each pair counted"
    )
    where = f"{config.processes} of {there.gpus} GPUs" if there.gpus else "the CPU"
    lines.append(f"in {config.precision} on {where}")
    return [*lines, resume.expectation(config, {key: rows_of(rows) for key, rows in data.all.items()})]


def _lines(key: str, dataset: PairDataset) -> list[str]:
    images = {image for pair in dataset.pairs for image in pair.prompt.images}
    longest = max(pair.tokens for pair in dataset.pairs)
    counted = Counter(skipped.reason for skipped in dataset.skipped)
    first = f"{key}: {len(dataset.pairs):,} rows, {len(images):,} distinct images, the longest row {longest:,} tokens"
    return [first, *(f"{key}: {count:,} rows skipped: {reason}" for reason, count in counted.most_common(5))]
