"""Reference log-probs: computed once per dataset before the first step, then read from an Arrow file.

With LoRA the reference is the model with its adapters off; with full tuning it is the model before its first update.
Either way no second model is held in memory. A missing row or a value that is not finite is an error, never a zero.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor, nn

from pipeline.base import files
from pipeline.base.sweep import sweep_shared
from training.config import Branch, TrainConfig
from training.corruption import identity
from training.data.identity import Start, rows_of
from training.data.pairs import PairDataset
from training.data.schedule import passes
from training.errors import ReferenceCacheError
from training.forward.policy import Logps, Policy, pair_logps
from training.loop.pass_size import Passes
from training.loop.worker import Worker

#: Looks up the reference log-probs of pairs by their indices.
Reference = Callable[[Sequence[int]], Logps]

#: Raised whenever the batch layout or the meaning of a column changes.
LAYOUT_VERSION = 3


def schema(config: TrainConfig) -> pa.Schema:
    """``place`` among the dataset's pairs, the id of the ``pair`` there (two places may hold the same), and one column
    per branch: log-probs in nats, summed over the response's tokens; 0 for a branch that the pair does not have."""
    columns = ((branch, pa.float64()) for branch in config.branches)
    return pa.schema([("place", pa.int64()), ("pair", pa.string()), *columns])


def fingerprint(dataset: PairDataset, start: Start, config: TrainConfig, share_prefix: bool = True) -> str:
    """What the stored values depend on: the pairs in their order (tokens, which hold the rendered template, and
    images), the starting model, how images are read, corruption and its seed, dtype, layout."""
    parts: dict[str, Any] = {
        "layout": (LAYOUT_VERSION, "packed" if share_prefix else "padded"),
        "pairs": rows_of(dataset).ordered,
        "branches": config.branches,
        "start": asdict(start),
        "quantization": config.quantization,
        "corruption": (
            (identity(config.corruption), config.corruption.model_dump(), config.seed)
            if config.needs_corrupted
            else None
        ),
        "dtype": config.precision,
    }
    return hashlib.blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


def folder_of(config: TrainConfig, name: str | None = None) -> Path:
    """Beside a local dataset, where every run on it finds them; in the run's own folder where that is not possible.

    ``name`` is the dataset, by default the one that is trained on.
    """
    # Whole: "." has no name that another one could be made from.
    dataset = Path(os.path.abspath(name if name is not None else config.dataset))
    beside = dataset.with_name(f"{dataset.name}-reference")
    if dataset.exists() and os.access(dataset.parent, os.W_OK):
        return beside
    return config.output_dir / "reference"


def live(policy: Policy, dataset: PairDataset, config: TrainConfig) -> Reference:
    """The reference computed anew for every batch: the model with its adapters off, or a frozen copy of it."""
    adapted = hasattr(policy.model, "disable_adapter")
    return starting_model(policy if adapted else replace(policy, model=_frozen_copy(policy.model)), dataset, config)


def starting_model(policy: Policy, dataset: PairDataset, config: TrainConfig) -> Reference:
    """The reference computed anew for every batch by the model itself, adapters off: in full tuning before any
    update."""

    def look_up(indices: Sequence[int]) -> Logps:
        with torch.no_grad(), _adapters_off(policy.model):
            return pair_logps(policy, dataset, indices, config)

    return look_up


def _frozen_copy(model: nn.Module) -> nn.Module:
    return copy.deepcopy(model).requires_grad_(False)


def load_or_compute(
    policy: Policy,
    dataset: PairDataset,
    config: TrainConfig,
    start: Start,
    folder: Path,
    worker: Worker | None = None,
    advance: Callable[[int], None] = lambda pairs: None,
    sized: Passes | None = None,
    places: Sequence[int] | None = None,
) -> Reference:
    """The reference log-probs of the pairs at ``places``, by default of all, from ``folder`` or computed now and stored
    there.

    ``policy.model`` must hold the weights of ``start``: call this before a checkpoint is restored. ``advance`` is told
    how many pairs each forward pass finished. Every worker calls it, and computes its share, in passes that ``sized``
    makes smaller where memory runs out. A file of all pairs serves for some.

    Raises:
        ReferenceCacheError: the file is damaged, or a pair has no finite value in it.
    """
    name = fingerprint(dataset, start, config, policy.forward.share_prefix)
    paths = [folder / f"{name}.arrow"]
    places = range(len(dataset.pairs)) if places is None else places
    if len(places) < len(dataset.pairs):
        paths.append(folder / f"{name}-{_digest(places)}.arrow")
    worker = worker or Worker(policy.device)
    # What the first one sees, or some would compute alone.
    there = worker.gather([path.exists() for path in paths])[: len(paths)]
    path = next((path for path, exists in zip(paths, there, strict=True) if exists), paths[-1])
    if any(there):
        rows = _read(path)
    else:

        def compute(config: TrainConfig) -> list[dict[str, Any]]:
            return _compute(policy, dataset, places, config, worker, advance)

        rows = worker.gather(sized.run(compute, "the reference") if sized is not None else compute(config))
        rows.sort(key=lambda row: row["place"])
        if worker.main:
            sweep_shared(folder)  # other runs on the dataset may be writing there
            _write(rows, path, schema(config))
    values = _align(rows, dataset, places, config, path, policy.device)
    row_of = {place: row for row, place in enumerate(places)}

    def look_up(indices: Sequence[int]) -> Logps:
        where = torch.tensor([row_of[index] for index in indices], device=policy.device)
        return {branch: column[where] for branch, column in values.items()}

    return look_up


def _digest(places: Sequence[int]) -> str:
    return hashlib.blake2b(json.dumps(list(places)).encode(), digest_size=8).hexdigest()


def _compute(
    policy: Policy,
    dataset: PairDataset,
    places: Sequence[int],
    config: TrainConfig,
    worker: Worker,
    advance: Callable[[int], None],
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    with torch.no_grad(), _adapters_off(policy.model):
        share = passes(dataset, places, config, worker.rank, worker.world)
        share.reverse()  # the longest first: where memory is to run out, it does at once
        for part, counts in policy.over(dataset, share, config.branches):
            logps = pair_logps(policy, dataset, part, config)
            if not counts:
                continue
            columns = {branch: values.tolist() for branch, values in logps.items()}
            rows += [
                {
                    "place": index,
                    "pair": dataset.pairs[index].id,
                    **{branch: values[i] for branch, values in columns.items()},
                }
                for i, index in enumerate(part)
            ]
            advance(len(part))
    return rows


def _adapters_off(model: nn.Module) -> AbstractContextManager[Any]:
    disable = getattr(model, "disable_adapter", None)
    return disable() if disable is not None else nullcontext()


def _write(rows: list[dict[str, Any]], path: Path, columns: pa.Schema) -> None:
    files.write_table(path, pa.Table.from_pylist(rows, schema=columns))


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        with pa.OSFile(str(path), "rb") as source:
            rows: list[dict[str, Any]] = pa.ipc.open_file(source).read_all().to_pylist()
            return rows
    except (OSError, pa.ArrowException) as error:
        raise ReferenceCacheError(f"{path}: cannot be read ({error}); delete the file to compute it again") from error


def _align(
    rows: list[dict[str, Any]],
    dataset: PairDataset,
    places: Sequence[int],
    config: TrainConfig,
    path: Path,
    device: torch.device,
) -> Logps:
    """The values of the pairs at ``places``, in their order; raises ``ReferenceCacheError`` naming the first pair
    without a finite one."""
    stored = {(row["place"], row["pair"]): row for row in rows}
    asked = [(place, dataset.pairs[place].id, dataset.pairs[place].name) for place in places]
    values: dict[Branch, Tensor] = {}
    for branch in config.branches:
        logps = [stored.get((place, pair), {}).get(branch) for place, pair, _ in asked]
        for (_, _, name), value in zip(asked, logps, strict=True):
            if value is None or not math.isfinite(value):
                raise ReferenceCacheError(
                    f"{name}: the reference log-prob of `{branch}` is {'missing' if value is None else value} in "
                    f"{path}; delete the file to compute it again, and check the model for overflow if it returns"
                )
        values[branch] = torch.tensor(logps, dtype=torch.float64, device=device)
    return values
