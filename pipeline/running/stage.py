"""What a stage is: one verb that turns one shard of each input table into one shard of its own.

A stage is frozen, picklable data; what it needs at run time (an engine, a scorer) is opened once per worker process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import pyarrow as pa

from pipeline.base.hardware import Auto
from pipeline.running.store import Run


@dataclass(frozen=True)
class WorkerSpec:
    """The processes a stage runs in. Stages with equal specs share them, so ``open`` must compare by value.

    ``kind`` names them in messages (``vllm:scenes-vlm``). ``cpus`` and ``gpus`` are per process; GPUs are taken only
    where the cluster has some. ``count="auto"`` stands for all GPUs of the cluster, and one process where there are
    none; ``count=0`` for one process per CPU of the cluster. ``env`` is set before ``open`` is called. No prompt that
    they are asked about has more than ``images`` images; None: nobody has counted. ``model`` is what each of them
    holds, a folder or a hub id; None: nothing that computes on this machine's cores, or nobody knows what.
    """

    kind: str
    open: Callable[[], Any]
    cpus: float = 1.0
    gpus: float = 0.0
    count: int | Auto = 1
    env: tuple[tuple[str, str], ...] = field(default=())
    images: int | None = field(default=None, compare=False)
    model: str | None = field(default=None, compare=False)

    def serves(self, other: WorkerSpec) -> bool:
        """Whether its processes can do what ``other`` is for."""
        room, most = self.images, other.images
        return self == other and (room is None or most is None or room >= most)

    def open_model(self) -> Any:
        """What ``open`` returns, which is told beforehand of how many images if it wants to know."""
        if self.images is not None and isinstance(self.open, ForImages):
            return self.open.for_images(self.images)()
        return self.open()


@runtime_checkable
class ForImages(Protocol):
    """An ``open`` that makes room for images, and needs to know for how many."""

    def for_images(self, most: int | None) -> Callable[[], Any]:
        """The same for prompts of at most ``most`` images."""
        ...


class Producer(Protocol):
    """What makes a table of a run. ``options`` holds everything that changes the result, model identities included, and
    nothing else. ``extras`` counts what progress should show beside rows, such as tokens."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int: ...

    @property
    def inputs(self) -> tuple[str, ...]: ...

    @property
    def schema(self) -> pa.Schema: ...

    def options(self) -> dict[str, Any]: ...

    def extras(self, table: pa.Table) -> dict[str, int]: ...


class Stage(Producer, Protocol):
    """``process`` gets what ``worker.open`` returned (None without a worker) and one shard of each table in ``inputs``.
    It returns one row per prompt of the shard; a row it cannot process is a failed row, never an exception."""

    @property
    def worker(self) -> WorkerSpec | None: ...

    def process(self, model: Any, tables: Mapping[str, pa.Table]) -> pa.Table: ...


@runtime_checkable
class Salvager(Protocol):
    """A stage that can take rows over from its own earlier shard: ``process`` finds it under the stage's own name."""

    def salvages(self, options: Mapping[str, Any]) -> bool:
        """Whether rows made with these (flat) options are still of use under the present ones."""
        ...


@runtime_checkable
class Unfinished(Protocol):
    """A stage whose rows may lack something that another try may bring, and be good rows without it."""

    def is_unfinished(self, table: pa.Table) -> bool:
        """Whether a later run should try the shard again."""
        ...


@runtime_checkable
class Dispensable(Protocol):
    """A stage whose rows others can do without: however many of them fail, the run goes on."""

    @property
    def dispensable(self) -> bool: ...


@runtime_checkable
class Source(Producer, Protocol):
    """A stage that knows by itself how its rows fall into shards, as one that begins a run does.

    Most read no table. One that does names them in ``inputs``, and reads whole tables, not one shard of each: all of it
    is made anew when the content of one has changed.
    """

    def shards(self, run: Run) -> Iterator[tuple[int, pa.Table]]: ...


@runtime_checkable
class Reports(Protocol):
    """What a worker holds may tell how busy it is: ``running`` and ``waiting`` requests, ``tokens`` made so far."""

    def stats(self) -> dict[str, int]: ...
