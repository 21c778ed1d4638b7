"""Which GPUs a model needs, and how many of them, as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.base import config_file
from training.config import TrainOptions
from training.sizing.architecture import Architecture
from training.sizing.sample_memory import GIB, can_split, sample_memory
from training.sizing.train_memory import Lengths, TrainMemory, train_memory

#: GiB of usual cards: L4 and RTX 4090, A100 40GB, L40S, A100 and H100 80GB, H200.
CARDS = (24, 40, 48, 80, 141)
#: The share of a card that the formula may fill: CUDA and the allocator take some, too.
FILLED = 0.9
#: How many cards are tried.
COUNTS = (1, 2, 4, 8, 16, 32, 64)
#: An engine that holds fewer answers at once is not worth its card.
FEWEST = 32

_GPU = {"objective": "dpo", "dtype": "bfloat16", "gradient_checkpointing": True}
#: What the table has a row for: its name, and the options.
ROWS: Mapping[str, Mapping[str, Any]] = {
    "LoRA r 64, DPO, 4 pairs a pass": _GPU,
    # As many as micro_batch_size=4 makes of pairs that weigh a little more.
    "LoRA r 64, mDPO, 3 pairs a pass": {**_GPU, "objective": "mdpo", "micro_batch_size": 3, "weigh_pairs": False},
    "LoRA r 64, DPO, 1 pair, no checkpointing": {**_GPU, "gradient_checkpointing": False, "micro_batch_size": 1},
    "QLoRA r 64, DPO, 1 pair": {**_GPU, "quantization": "nf4", "micro_batch_size": 1},
    "all weights, DPO, 1 pair": {**_GPU, "tuning": "full", "micro_batch_size": 1},
}


def workers_needed(
    shape: Architecture, options: TrainOptions, lengths: Lengths, card: int
) -> tuple[int, TrainMemory] | None:
    """How many cards of so many bytes train with these options, and what is then on each; None if 64 are too few.

    One with ``sharding=ddp`` where that is enough (more make it faster, not smaller), else as many as ``fsdp`` needs.
    """
    for count in COUNTS:
        if count > 1 and options.quantization is not None:  # cannot be split
            return None
        sharding = "fsdp" if count > 1 else "ddp"
        memory = train_memory(shape, options.model_copy(update={"workers": count, "sharding": sharding}), lengths)
        if memory.total <= FILLED * card:
            return count, memory
    return None


def table(shape: Architecture, lengths: Lengths, n: int, rows: Mapping[str, Mapping[str, Any]] = ROWS) -> str:
    """Markdown: ``2 x 19.9`` are two cards with 19.9 GiB on each; of sampling, how many answers are made at once."""
    lines = [
        f"| {shape.name} | {' | '.join(f'{card} GiB' for card in CARDS)} |",
        "|---" * (len(CARDS) + 1) + "|",
        f"| sampling, answers at once | {' | '.join(_sampling(shape, lengths, n, card * GIB) for card in CARDS)} |",
    ]
    for name, values in rows.items():
        options = config_file.make(TrainOptions, values, what="the options of training")
        cells = (_training(shape, options, lengths, card * GIB) for card in CARDS)
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _sampling(shape: Architecture, lengths: Lengths, n: int, card: int) -> str:
    for count in COUNTS[:4]:
        if can_split(shape, count):
            memory = sample_memory(shape, card, count, lengths, n)
            if memory.answers >= FEWEST:
                return f"{count} x {memory.answers:,}"
    return "-"


def _training(shape: Architecture, options: TrainOptions, lengths: Lengths, card: int) -> str:
    needed = workers_needed(shape, options, lengths, card)
    return "-" if needed is None else f"{needed[0]} x {needed[1].total / GIB:.1f}"
