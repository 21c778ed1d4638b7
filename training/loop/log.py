"""Where metrics go: ``metrics.jsonl``, TensorBoard, and Weights & Biases if asked for."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.base import files
from pipeline.base.errors import ConfigError
from training.config import TrainConfig

_SHOWN = ("loss", "loss/sft", "eval/loss", "rewards/margins", "rewards/accuracies", "rewards/image_margins")


class MetricsLog:
    """A context manager; ``step`` of a resumed run cuts off the lines that the lost steps had written.

    With ``active=False`` (every process but the first) it writes nothing.
    """

    def __init__(self, config: TrainConfig, step: int, active: bool = True) -> None:
        self._board: Any = None
        self._wandb: Any = None
        if not active:
            return
        output_dir = config.output_dir
        from torch.utils.tensorboard import SummaryWriter

        self._path = output_dir / "metrics.jsonl"
        lines = self._path.read_text().splitlines(keepends=True) if self._path.exists() else []
        files.write_text(self._path, "".join(line for line in lines if _step_of(line) <= step))
        self._board = SummaryWriter(str(output_dir / "tensorboard"), purge_step=step + 1)
        self._wandb = _wandb_run(config) if config.wandb_project is not None else None

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one line and one set of scalars."""
        if self._board is None:
            return
        with self._path.open("a") as file:
            file.write(json.dumps({"step": step, **metrics}) + "\n")
            file.flush()
            os.fsync(file.fileno())  # a checkpoint of this step must not outlive its line
        for name, value in metrics.items():
            self._board.add_scalar(name, value, step)
        if self._wandb is not None:
            self._wandb.log(dict(metrics), step=step)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *_: object) -> None:
        if self._board is not None:
            self._board.close()
        if self._wandb is not None:
            self._wandb.finish()


def check_wandb(config: TrainConfig) -> None:
    """Raises ``ConfigError`` if Weights & Biases is asked for and not installed: before training, not after hours."""
    if config.wandb_project is not None:
        _wandb()


def clear(output_dir: Path) -> None:
    """Forget what was logged."""
    for name in ("metrics.jsonl", WANDB_ID):
        files.remove(output_dir / name)


#: Holds the id under which a resumed run goes on.
WANDB_ID = "wandb_run_id"


def _wandb() -> Any:
    try:
        import wandb
    except ImportError as error:
        raise ConfigError("wandb_project is set but wandb is not installed; pip install wandb, or unset it") from error
    return wandb


def _wandb_run(config: TrainConfig) -> Any:
    """The run of this output folder. Its key is wandb's own business: ``wandb login`` or the environment."""
    path = config.output_dir / WANDB_ID
    run = _wandb().init(
        project=config.wandb_project,
        name=config.output_dir.name,
        dir=str(config.output_dir),
        config=config.model_dump(mode="json"),
        id=path.read_text().strip() if path.exists() else None,
        resume="allow",
    )
    path.write_text(f"{run.id}\n")
    return run


def _step_of(line: str) -> float:
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):  # a line cut short by the kill
        return float("inf")


def progress_note(metrics: Mapping[str, float]) -> str:
    """The main metrics of a step, in one line."""
    return "  ".join(f"{name} {metrics[name]:.4f}" for name in _SHOWN if name in metrics)
