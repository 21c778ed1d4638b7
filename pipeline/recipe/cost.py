"""What a stage costs, from a few times that it ran over samples of different sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.engines import counted
from pipeline.running.stage import Source, Stage
from pipeline.sampling.config import OpenAIOptions, Sample, ScriptedOptions, VllmOptions
from pipeline.sampling.stage import SampleStage
from pipeline.scoring.ask import AskStage

#: In one step of vLLM, where nobody says: on a CPU and most GPUs.
_SEQUENCES = 256


@dataclass(frozen=True)
class Lap:
    """A stage took ``seconds`` for ``rows`` of what it reads."""

    rows: int
    seconds: float


@dataclass(frozen=True)
class Cost:
    """What was measured of a stage.

    ``laps`` rise in size. ``full`` is how many rows fill its worker; a ``whole`` stage makes its rows in one go and
    has no such batches. ``start``: seconds until its worker was open, 0 where it was already, None without one.
    ``first``: seconds that its first rows took beyond what their number explains. ``rows_per_row`` are made of each
    that is read, each of ``bytes_per_row``; ``counts`` are what its engine was asked for each row that is read
    (``pipeline.engines.counted``).
    """

    laps: tuple[Lap, ...]
    full: int = 1
    whole: bool = False
    start: float | None = None
    first: float = 0.0
    rows_per_row: float = 1.0
    bytes_per_row: float | None = None
    counts: Mapping[str, float] | None = None

    @classmethod
    def of(
        cls,
        laps: Sequence[Lap],
        full: int,
        whole: bool,
        start: float | None,
        read: int,
        made: int,
        size: int,
        counts: Mapping[str, int],
    ) -> Cost:
        """``laps``: the first is that over the first rows. ``read``, ``made`` and ``size`` (bytes) are of all of them,
        as ``counts`` is."""
        rest = cls(tuple(laps[1:] or laps), full, whole)
        expected = rest.seconds(laps[0].rows) if len(laps) > 1 else None
        return cls(
            rest.laps,
            full,
            whole,
            start,
            0.0 if expected is None else max(0.0, laps[0].seconds - expected),
            made / read if read else 1.0,
            size / made if made else None,
            {name: count / read for name, count in counts.items()} if read and counts.get(counted.REQUESTS) else None,
        )

    def seconds(self, rows: float, workers: int = 1) -> float | None:
        """What ``rows`` take once its worker is at full speed; None if nothing was measured.

        A batch costs something whatever is in it, and each row something more: the slowest answer has to be waited for,
        and meanwhile others come beside it. Two sizes tell the two apart. A sample that filled the worker needs no such
        reckoning.

        >>> round(Cost((Lap(5, 2.0), Lap(20, 3.5)), full=40).seconds(400), 1)
        55.0
        >>> Cost((Lap(20, 3.5), Lap(128, 12.8)), full=40).seconds(1280)
        128.0
        """
        if not self.laps:
            return None
        last = self.laps[-1]
        each, batch = self._line()
        if self.whole:
            return batch + each * rows
        if rows <= last.rows:
            return batch + each * rows
        if last.rows >= self.full:
            return last.seconds / last.rows * rows / workers
        return (batch / self.full + each) * rows / workers

    def _line(self) -> tuple[float, float]:
        """Seconds of a row, and of a batch beside its rows, neither of which is below nothing."""
        last = self.laps[-1]
        before = next((lap for lap in reversed(self.laps[:-1]) if lap.rows < last.rows), None)
        if before is None:
            return last.seconds / max(last.rows, 1), 0.0
        each = max(0.0, (last.seconds - before.seconds) / (last.rows - before.rows))
        batch = last.seconds - each * last.rows
        return (each, batch) if batch >= 0 else (last.seconds / last.rows, 0.0)


def batch_rows(stage: Source | Stage, shard: int) -> int:
    """How many rows of what it reads a worker of a stage has at a time, when it has enough."""
    if isinstance(stage, SampleStage):
        return _rows_at_once(stage.spec, stage.spec.n * len(stage.spec.temperatures), shard)
    if isinstance(stage, AskStage):
        return _rows_at_once(stage.spec, 1, shard)
    return shard


def _rows_at_once(spec: Sample, answers: int, shard: int) -> int:
    engine = spec.engine
    if isinstance(engine, VllmOptions):
        return max(1, min(math.ceil((engine.max_num_seqs or _SEQUENCES) / answers), shard))
    if isinstance(engine, OpenAIOptions):
        return max(1, min(engine.concurrency, shard))
    return 1 if isinstance(engine, ScriptedOptions) else shard
