"""What a training takes where its options say ``auto`` and the GPUs decide. Pure; imports no torch."""

from __future__ import annotations

from pipeline.base.hardware import Dtype, Hardware
from training.config import TrainConfig


def settled(config: TrainConfig, hardware: Hardware, begun: Dtype | None = None) -> TrainConfig:
    """``dtype`` and ``workers`` as they will be; what else is ``auto`` needs the model (``training.loop.pass_size``).

    ``begun`` is the dtype of a run that goes on, which keeps it: half a run in another would be neither.

    >>> from pipeline.base.hardware import Node
    >>> config = TrainConfig(model="m", dataset="d", output_dir="o", batch_size=4)
    >>> eight = settled(config, Hardware((Node(64, 8),)))
    >>> eight.dtype, eight.workers  # a fifth worker would have no pair
    ('bfloat16', 4)
    """
    update: dict[str, object] = {}
    if config.dtype == "auto":
        update["dtype"] = begun or hardware.dtype
    if config.workers == "auto":
        update["workers"] = min(hardware.workers(1.0), config.batch_size)
    return config.model_copy(update=update)
