"""Resumable checkpoints: a folder ``step-00000120`` exists if and only if it is complete (fsync, then rename).

Tensors are stored by the names of their parameters, those that are split over workers in parts
(``training.loop.tensor_files``): a run goes on with any number of workers, split or not.
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
from torch import nn

from pipeline.base import files
from training.config.steps import KEEP
from training.loop.evaluate_loss import Best
from training.loop.sharding import like, whole
from training.loop.tensor_files import WHOLE, Stored, is_split, rows_of, stored, write_parts, write_whole
from training.loop.worker import Worker

#: What AdamW keeps of every parameter beside the count of steps.
_MOMENTS = ("exp_avg", "exp_avg_sq")

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
    worker: Worker,
) -> None:
    """Write ``folder/step-N`` with only the parameters that move, then delete all but the newest ``KEEP``.

    ``about`` is kept in ``META``: what the run depends on (``training.loop.resume.about``). Every worker calls it, and
    writes its part of what is split; the first one writes the rest, and when all have done so makes it a checkpoint.
    """
    target = folder / f"step-{progress.step:08d}"
    partial = _begin(target, worker)
    states = {name: optimizer.state[value] for name, value in parameters.items() if value in optimizer.state}
    split = {f"{key}/{name}": value for name, state in states.items() for key, value in state.items()}
    write_parts(partial, {**parameters, **split}, worker)
    if worker.main:
        write_whole(partial / WHOLE, parameters)
        torch.save(
            {
                "moments": {
                    name: {key: whole(value) for key, value in state.items() if not is_split(value)}
                    for name, state in states.items()
                },
                "scheduler": scheduler.state_dict(),
                "rng": _rng_state(),
                "sums": dict(progress.sums or {}),
                "count": progress.count,
                "best": astuple(progress.best),
            },
            partial / "state.pt",
        )
        (partial / META).write_text(json.dumps({"step": progress.step, **about}, indent=2) + "\n")
    worker.wait()
    if not worker.main:
        return
    files.sync_tree(partial)
    files.remove_tree(target)  # whole, at once: half a checkpoint must not be one
    files.move(partial, target)
    for old in _complete(folder)[:-KEEP]:
        files.remove_tree(old)
    # An older best is kept until a checkpoint says that there is a better one.
    for path in folder.glob("best-*"):
        if path.name.partition(".")[0] != _best(folder, progress.best.step).name:
            files.remove_tree(path) if path.is_dir() else path.unlink()


def restore(
    folder: Path,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
) -> Progress:
    """Load the newest checkpoint in place and say where it stands; ``Progress()`` if there is none. A worker reads what
    it holds of a tensor, however it was stored.

    ``training.loop.resume`` has seen that it is one of this run.
    """
    step_folder = newest(folder)
    if step_folder is None:
        return Progress()
    meta = json.loads((step_folder / META).read_text())
    state = torch.load(step_folder / "state.pt", map_location="cpu", weights_only=True, mmap=True)
    with stored(step_folder) as tensors:
        _fill(parameters, tensors)
        for name, values in state["moments"].items():
            parameter = parameters[name]
            # Moments have the shape of their parameter, and those of a split one lie where it does; the count of steps
            # is a scalar.
            parts = {key: tensors.read(f"{key}/{name}", parameter) for key in _MOMENTS if key not in values}
            parts |= {key: rows_of(value, parameter) for key, value in values.items() if value.ndim}
            optimizer.state[parameter] = {key: like(part.clone(), parameter) for key, part in parts.items()} | {
                key: value.to(parameter.device) for key, value in values.items() if not value.ndim
            }
    scheduler.load_state_dict(state["scheduler"])
    for group, rate in zip(optimizer.param_groups, scheduler.get_last_lr(), strict=True):
        group["lr"] = rate
    _set_rng_state(state["rng"])
    return Progress(meta["step"], state["sums"], state["count"], Best(*state["best"]))


def save_best(folder: Path, step: int, parameters: Mapping[str, nn.Parameter], worker: Worker) -> None:
    """Keep the weights of the best evaluation so far, in ``folder/best-N``. Every worker calls it."""
    target = _best(folder, step)
    partial = _begin(target, worker)
    write_parts(partial, parameters, worker)
    if worker.main:
        write_whole(partial / WHOLE, parameters)
    worker.wait()
    if worker.main:
        files.sync_tree(partial)
        files.remove_tree(target)
        files.move(partial, target)


def load_best(folder: Path, step: int, parameters: Mapping[str, nn.Parameter]) -> None:
    """Put the weights of ``save_best`` into the parameters, in place."""
    path = _best(folder, step)
    with stored(path if path.exists() else path.with_suffix(".safetensors")) as tensors:  # a file in earlier runs
        _fill(parameters, tensors)


@torch.no_grad()
def _fill(parameters: Mapping[str, nn.Parameter], tensors: Stored) -> None:
    for name, parameter in parameters.items():
        parameter.copy_(like(tensors.read(name, parameter), parameter))


def clear(folder: Path) -> None:
    """Forget all checkpoints."""
    files.remove_tree(folder)


def _best(folder: Path, step: int) -> Path:
    return folder / f"best-{step:08d}"


def _begin(target: Path, worker: Worker) -> Path:
    """An empty folder beside ``target``, the same for all workers, to be moved there when it is full."""
    # Not the name under which ``files.remove_tree`` lets an earlier target step aside.
    partial = target.with_name(f".{target.name}.new.{os.getpid()}{files.TEMPORARY}")
    if worker.main:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
    return worker.gather([partial])[0]


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
