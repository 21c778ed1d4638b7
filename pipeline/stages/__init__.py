"""What a stage is: one verb that turns one shard of each input table into one shard of its own.

A stage is frozen, picklable data; what it needs at run time (an engine, a scorer) is opened once per worker process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa


@dataclass(frozen=True)
class WorkerSpec:
    """The processes a stage runs in. Stages with equal specs share them, so ``open`` must compare by value.

    ``kind`` names them in messages (``vllm:scenes-vlm``). ``cpus`` and ``gpus`` are per process; GPUs are taken only
    where the cluster has some. ``env`` is set before ``open`` is called.
    """

    kind: str
    open: Callable[[], Any]
    cpus: float = 1.0
    gpus: float = 0.0
    count: int = 1
    env: tuple[tuple[str, str], ...] = field(default=())


class Stage(Protocol):
    """``options`` holds everything that changes the result, model identities included, and nothing else.

    ``process`` gets what ``worker.open`` returned (None without a worker) and one shard of each table in ``inputs``.
    It returns one row per prompt of the shard; a row it cannot process is a failed row, never an exception. ``extras``
    counts what progress should show beside rows, such as tokens.
    """

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int: ...

    @property
    def inputs(self) -> tuple[str, ...]: ...

    @property
    def schema(self) -> pa.Schema: ...

    @property
    def worker(self) -> WorkerSpec | None: ...

    def options(self) -> dict[str, Any]: ...

    def process(self, model: Any, tables: Mapping[str, pa.Table]) -> pa.Table: ...

    def extras(self, table: pa.Table) -> dict[str, int]: ...
