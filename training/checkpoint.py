"""Resumable checkpoints: a folder ``step-00000120`` exists if and only if it is complete (fsync, then rename)."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training.config import TrainConfig
from training.errors import CheckpointError

KEEP = 2


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training stands: optimiser steps done, and metric sums not yet logged (``count`` pairs)."""

    step: int = 0
    sums: Mapping[str, float] | None = None
    count: int = 0


def save(
    folder: Path,
    progress: Progress,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    config: TrainConfig,
    reference: str,
) -> None:
    """Write ``folder/step-N`` with only the parameters that move, then delete all but the newest ``KEEP``."""
    target = folder / f"step-{progress.step:08d}"
    partial = target.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in parameters.items()}
    save_file(weights, partial / "weights.safetensors")
    state = {
        "optimizer": optimizer.state_dict(),
        "scheduler": scheduler.state_dict(),
        "rng": _rng_state(),
        "sums": dict(progress.sums or {}),
        "count": progress.count,
    }
    torch.save(state, partial / "state.pt")
    meta = {"step": progress.step, "weights": reference, "config": config.result_options()}
    (partial / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")
    for path in partial.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
    shutil.rmtree(target, ignore_errors=True)
    os.rename(partial, target)
    for old in _complete(folder)[:-KEEP]:
        shutil.rmtree(old)


def restore(
    folder: Path,
    parameters: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    config: TrainConfig,
    reference: str,
) -> Progress:
    """Load the newest checkpoint in place and say where it stands; ``Progress()`` if there is none.

    Raises ``CheckpointError`` if it was made with other options or from another starting model, naming each.
    """
    found = _complete(folder)
    if not found:
        return Progress()
    newest = found[-1]
    meta = json.loads((newest / "meta.json").read_text())
    _check_same(newest, meta, config, reference)
    weights: dict[str, Tensor] = load_file(newest / "weights.safetensors")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(weights[name])
    state = torch.load(newest / "state.pt", map_location="cpu", weights_only=True)
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    _set_rng_state(state["rng"])
    return Progress(step=meta["step"], sums=state["sums"], count=state["count"])


def clear(folder: Path) -> None:
    """Forget all checkpoints: what ``resume=false`` means."""
    shutil.rmtree(folder, ignore_errors=True)


def _complete(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if path.suffix != ".partial")


def _check_same(path: Path, meta: Mapping[str, Any], config: TrainConfig, reference: str) -> None:
    was, now = meta["config"], config.result_options()
    changed = [f"{key} was {was.get(key)!r} and is {now[key]!r}" for key in now if was.get(key) != now[key]]
    # The path may have changed hands without changing its text, so the weights themselves are compared as well.
    if meta["weights"] != reference:
        changed.append("the starting model's weights differ")
    if changed:
        raise CheckpointError(
            f"{path} was made by another run: {'; '.join(changed)}. "
            "Use another output_dir, restore the old values, or start over with resume=false"
        )


def _rng_state() -> dict[str, Any]:
    # Training itself draws nothing (the order of pairs comes from the seed); kept for models that do.
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    return {"torch": torch.get_rng_state(), "cuda": cuda}


def _set_rng_state(state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["torch"])
    if state["cuda"]:
        torch.cuda.set_rng_state_all(state["cuda"])
