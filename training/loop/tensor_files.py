"""The tensors of a run as files: what is whole in one, what is split over workers in one file a worker.

Nothing is put together to be written, so no worker ever holds more than its part; and any number of workers, split or
not, read back what each of them needs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

from pipeline.base import files
from training.errors import CheckpointError
from training.loop.worker import Worker

#: The first file has what is whole.
WHOLE = "weights.safetensors"
#: The files of parts; in the order of their names, their rows make the tensors.
_PART = "part-{:05d}-of-{:05d}.safetensors"


def write_whole(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """The tensors that are not split, into one file."""
    save_file({key: value.detach().cpu().contiguous() for key, value in tensors.items() if not is_split(value)}, path)


def write_parts(folder: Path, tensors: Mapping[str, Tensor], worker: Worker) -> None:
    """This worker's rows of the tensors that are split, onto the disk, into a file of its own; none if none is split.
    Every worker calls it."""
    parts = {
        key: value.to_local().detach().cpu().contiguous()
        for key, value in tensors.items()
        if isinstance(value, DTensor) and is_split(value)
    }
    if parts:
        path = folder / _PART.format(worker.rank, worker.world)
        save_file(parts, path)
        files.sync_tree(path)


def is_split(value: Tensor) -> bool:
    """Whether workers hold parts of it. Splitting is by rows, the first axis."""
    return isinstance(value, DTensor) and value.placements == (Shard(0),)


class Stored:
    """The tensors in a folder of ``write_whole`` and ``write_parts``."""

    def __init__(self, folder: Path, whole: Any, parts: list[Any]) -> None:
        self._folder, self._whole, self._parts = folder, whole, parts
        self._keys = set(whole.keys())

    def read(self, key: str, like: Tensor) -> Tensor:
        """On the CPU, what this worker holds of a tensor that is shaped and placed as ``like``: all, or its rows.

        Raises:
            CheckpointError: rows are missing.
        """
        if key in self._keys:
            return rows_of(self._whole.get_slice(key), like) if is_split(like) else self._whole.get_tensor(key)
        first, end = _rows(like)
        pieces: list[Tensor] = []
        at = 0
        for part in self._parts:
            rows = part.get_slice(key)
            length = rows.get_shape()[0]
            low, high = max(first, at), min(end, at + length)
            if low < high:
                pieces.append(rows[low - at : high - at])
            at += length
        if at != like.shape[0]:
            raise CheckpointError(
                f"{self._folder}: {at} of {like.shape[0]} rows of {key} are there; a file is missing. Delete it "
                "to go on from the checkpoint before it"
            )
        return torch.cat(pieces) if pieces else torch.empty(0, *like.shape[1:], dtype=like.dtype)


def rows_of(whole: Any, like: Tensor) -> Tensor:
    """Of a tensor, or a slice of a file, the rows that this worker holds of ``like``."""
    first, end = _rows(like)
    rows: Tensor = whole[first:end]
    return rows


def _rows(like: Tensor) -> tuple[int, int]:
    if not isinstance(like, DTensor):
        return 0, like.shape[0]
    shape, offset = compute_local_shape_and_global_offset(like.shape, like.device_mesh, like.placements)
    return offset[0], offset[0] + shape[0]


@contextmanager
def stored(path: Path) -> Iterator[Stored]:
    """What lies in a folder, or in one file; tensors are read when they are asked for."""
    with ExitStack() as stack:
        parts = sorted(path.glob("part-*-of-*.safetensors"))
        opened = [
            stack.enter_context(safe_open(each, framework="pt"))
            for each in (path / WHOLE if path.is_dir() else path, *parts)
        ]
        yield Stored(path, opened[0], opened[1:])
