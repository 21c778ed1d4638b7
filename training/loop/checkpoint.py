"""Resumable checkpoints: a folder ``step-00000120`` exists if and only if it is complete (fsync, then rename).

Tensors are stored whole, by the names of their parameters: a run goes on with any number of workers, split or not.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from pipeline.base import files
from training.loop.evaluate_loss import Best
from training.loop.sharding import like, whole

KEEP = 2

#: Which step it is of, and what the run depends on.
META = "meta.json"


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training stands: optimiser steps done, metric sums not yet logged (of ``count`` pairs, over all workers),
    and the best evaluation."""

    step: int = 0
    sums: Mapping[str, float] | None = None
    count: int = 0
    best: Best = field(default_factory=Best)


def save(
    folder: Path,
    progress: Progress,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    about: Mapping[str, Any],
    write: bool = True,
) -> None:
    """Write ``folder/step-N`` with only the parameters that move, then delete all but the newest ``KEEP``.

    ``about`` is kept in ``META``: what the run depends on (``training.loop.resume.about``).
    Every worker calls it, as split tensors are put together; one of them does ``write``.
    """
    weights = {name: whole(value, keep=write) for name, value in parameters.items()}
    moments = {
        name: {key: whole(value, keep=write) for key, value in optimizer.state[parameter].items()}
        for name, parameter in parameters.items()
        if parameter in optimizer.state
    }
    if not write:
        return
    target = folder / f"step-{progress.step:08d}"
    partial = _partial_path(target)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_file(weights, partial / "weights.safetensors")
    state = {
        "moments": moments,
        "scheduler": scheduler.state_dict(),
        "rng": _rng_state(),
        "sums": dict(progress.sums or {}),
        "count": progress.count,
        "best": astuple(progress.best),
    }
    torch.save(state, partial / "state.pt")
    (partial / META).write_text(json.dumps({"step": progress.step, **about}, indent=2) + "\n")
    files.sync_tree(partial)
    files.remove_tree(target)  # whole, at once: half a checkpoint must not be one
    files.move(partial, target)
    for old in _complete(folder)[:-KEEP]:
        files.remove_tree(old)
    # An older best is kept until a checkpoint says that there is a better one.
    for path in folder.glob("best-*"):
        if path != _best(folder, progress.best.step):
            path.unlink()


def restore(
    folder: Path,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
) -> Progress:
    """Load the newest checkpoint in place and say where it stands; ``Progress()`` if there is none.

    ``training.loop.resume`` has seen that it is one of this run.
    """
    step_folder = newest(folder)
    if step_folder is None:
        return Progress()
    meta = json.loads((step_folder / META).read_text())
    load(step_folder / "weights.safetensors", parameters)
    state = torch.load(step_folder / "state.pt", map_location="cpu", weights_only=True)
    for name, values in state["moments"].items():
        # Moments have the shape of their parameter; the count of steps is a scalar that stays where it is.
        optimizer.state[parameters[name]] = {
            key: like(value, parameters[name]) if value.ndim else value for key, value in values.items()
        }
    scheduler.load_state_dict(state["scheduler"])
    for group, rate in zip(optimizer.param_groups, scheduler.get_last_lr(), strict=True):
        group["lr"] = rate
    _set_rng_state(state["rng"])
    return Progress(meta["step"], state["sums"], state["count"], Best(*state["best"]))


def save_best(folder: Path, step: int, parameters: Mapping[str, nn.Parameter], write: bool = True) -> None:
    """Keep the weights of the best evaluation so far. Every worker calls it, one does ``write``."""
    weights = {name: whole(value, keep=write) for name, value in parameters.items()}
    if write:
        folder.mkdir(parents=True, exist_ok=True)
        partial = _partial_path(_best(folder, step))
        save_file(weights, partial)
        files.sync_tree(partial)
        files.move(partial, _best(folder, step))


def load_best(folder: Path, step: int, parameters: Mapping[str, nn.Parameter]) -> None:
    """Put the weights of ``save_best`` into the parameters, in place."""
    load(_best(folder, step), parameters)


@torch.no_grad()
def load(path: Path, parameters: Mapping[str, nn.Parameter]) -> None:
    """Put stored weights into the parameters, in place."""
    weights: dict[str, Tensor] = load_file(path)
    for name, parameter in parameters.items():
        parameter.copy_(like(weights[name], parameter))


def clear(folder: Path) -> None:
    """Forget all checkpoints."""
    files.remove_tree(folder)


def _best(folder: Path, step: int) -> Path:
    return folder / f"best-{step:08d}.safetensors"


def _partial_path(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}{files.TEMPORARY}")


def newest(folder: Path) -> Path | None:
    """The last complete checkpoint."""
    folders = _complete(folder)
    return folders[-1] if folders else None


def _complete(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if path.suffix != ".partial")  # of before they were hidden


def _rng_state() -> dict[str, Any]:
    # Training itself draws nothing (the order of pairs comes from the seed); kept for models that do.
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"torch": torch.get_rng_state(), "cuda": cuda}


def _set_rng_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    # A run may go on with another number of GPUs.
    if state["cuda"] and len(state["cuda"]) == torch.cuda.device_count():
        torch.cuda.set_rng_state_all(state["cuda"])
