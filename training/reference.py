"""Reference log-probs: computed once per dataset before the first step, then read from an Arrow file.

With LoRA the reference is the model with its adapters off; with full tuning it is the model before its first update.
Either way no second model is held in memory. A missing row or a value that is not finite is an error, never a zero.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from accelerate.utils import gather_object
from torch import Tensor, nn

from training.config import TrainConfig
from training.data import PairDataset
from training.errors import ReferenceCacheError
from training.policy import PairLogps, Policy, pair_logps

#: Raised whenever the batch layout or the meaning of a column changes.
LAYOUT_VERSION = 1

#: Log-probs in nats, summed over the response's tokens; ``corrupted`` is null for DPO without ``probe_image``.
SCHEMA = pa.schema(
    [("pair", pa.string()), ("chosen", pa.float32()), ("rejected", pa.float32()), ("corrupted", pa.float32())]
)


def weights_digest(model: nn.Module) -> str:
    """A hash of every parameter and buffer, with names: the identity of the reference, wherever it was loaded from."""
    digest = hashlib.blake2b(digest_size=16)
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}|{value.dtype}|{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def fingerprint(dataset: PairDataset, weights: str, config: TrainConfig) -> str:
    """What the stored values depend on: pairs (which include the rendered template), their tokens, weights, image
    processing, corruption and its seed, dtype, layout."""
    processor = dataset.processor
    parts: dict[str, Any] = {
        "layout": LAYOUT_VERSION,
        "pairs": [pair.id for pair in dataset.pairs],
        "tokens": [(pair.prompt_ids, pair.chosen_ids, pair.rejected_ids) for pair in dataset.pairs],
        "weights": weights,
        "template": processor.chat_template,
        "image_processor": processor.image_processor.to_dict(),
        "corruption": (config.corruption.model_dump(), config.seed) if config.needs_corrupted else None,
        "dtype": config.dtype,
    }
    return hashlib.blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


def load_or_compute(
    policy: Policy,
    dataset: PairDataset,
    config: TrainConfig,
    weights: str,
    rank: int = 0,
    world: int = 1,
    advance: Callable[[int], None] = lambda pairs: None,
) -> PairLogps:
    """Reference log-probs aligned to ``dataset.pairs``, float32 [len(pairs)] each, on the policy's device.

    ``policy.model`` must hold the starting weights: call this before a checkpoint is restored. ``advance`` is told
    how many pairs each forward pass finished.
    """
    folder = config.output_dir / "reference"
    path = folder / f"{fingerprint(dataset, weights, config)}.arrow"
    if not path.exists():
        values = _compute(policy, dataset, config, range(rank, len(dataset.pairs), world), advance)
        rows = gather_object(values)
        if rank == 0:
            folder.mkdir(parents=True, exist_ok=True)
            _write(rows, path)
        return _align(rows, dataset, config, path, policy.device)
    return _align(_read(path), dataset, config, path, policy.device)


def _compute(
    policy: Policy, dataset: PairDataset, config: TrainConfig, indices: Sequence[int], advance: Callable[[int], None]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with torch.no_grad(), _adapters_off(policy.model):
        for start in range(0, len(indices), config.micro_batch_size):
            part = indices[start : start + config.micro_batch_size]
            logps = pair_logps(policy, dataset, part, config)
            corrupted = logps.corrupted.tolist() if logps.corrupted is not None else [None] * len(part)
            values = zip(part, logps.chosen.tolist(), logps.rejected.tolist(), corrupted, strict=True)
            rows += [
                {"pair": dataset.pairs[i].id, "chosen": chosen, "rejected": rejected, "corrupted": masked}
                for i, chosen, rejected, masked in values
            ]
            advance(len(part))
    return rows


def _adapters_off(model: nn.Module) -> AbstractContextManager[Any]:
    disable = getattr(model, "disable_adapter", None)
    return disable() if disable is not None else nullcontext()


def _write(rows: list[dict[str, Any]], path: Path) -> None:
    partial = path.with_suffix(".partial")
    with pa.OSFile(str(partial), "wb") as sink, pa.ipc.new_file(sink, SCHEMA) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=SCHEMA))
    with partial.open("rb") as file:
        os.fsync(file.fileno())
    os.rename(partial, path)


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        with pa.OSFile(str(path), "rb") as source:
            rows: list[dict[str, Any]] = pa.ipc.open_file(source).read_all().to_pylist()
            return rows
    except (OSError, pa.ArrowException) as error:
        raise ReferenceCacheError(f"{path}: cannot be read ({error}); delete the file to compute it again") from error


def _align(
    rows: list[dict[str, Any]], dataset: PairDataset, config: TrainConfig, path: Path, device: torch.device
) -> PairLogps:
    """Look every pair up; raises ``ReferenceCacheError`` naming the first pair without a finite value."""
    by_pair = {row["pair"]: row for row in rows}
    columns = ("chosen", "rejected", "corrupted") if config.needs_corrupted else ("chosen", "rejected")
    values: dict[str, Tensor] = {}
    for column in columns:
        found = [by_pair.get(pair.id, {}).get(column) for pair in dataset.pairs]
        for pair, value in zip(dataset.pairs, found, strict=True):
            if value is None or not math.isfinite(value):
                raise ReferenceCacheError(
                    f"{pair.name}: the reference log-prob of `{column}` is {'missing' if value is None else value} in "
                    f"{path}; delete the file to compute it again, and check the model for overflow if it returns"
                )
        values[column] = torch.tensor(found, dtype=torch.float32, device=device)
    return PairLogps(values["chosen"], values["rejected"], values.get("corrupted"))
