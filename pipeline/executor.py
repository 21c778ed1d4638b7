"""Run stages over shards: inline, or on a pool of Ray actors. The only module that imports Ray.

Workers read their input shards and write the output shard themselves; only counts travel through the driver. A stage
can be killed at any moment and continued: what is finished is what lies on disk.
"""

from __future__ import annotations

import collections
import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import EngineError, InputError, PipelineError, TooManyFailures
from pipeline.progress import Progress
from pipeline.resume import Resume, prepare
from pipeline.stages import Stage, WorkerSpec
from pipeline.store import Record, Run
from pipeline.tables import failed

#: Shards handed to a worker at a time: the next one is read and its images decoded while the engine is busy.
IN_FLIGHT = 2


@dataclass(frozen=True)
class StageResult:
    """``rows`` and ``failed`` count the whole table, ``seconds`` every run that worked on it, ``reused`` shards."""

    seconds: float
    rows: int
    failed: int
    reused: int
    extras: Mapping[str, int] = field(default_factory=dict)


class Executor:
    """Runs stages of one run directory. A context manager: leaving it stops the workers.

    The pool of the last stage stays warm until a stage with another ``WorkerSpec`` needs its resources.
    """

    def __init__(
        self, run: Run, max_failure_rate: float = 0.01, shard_retries: int = 2, progress: Progress | None = None
    ) -> None:
        self._store = run
        self._max_failure_rate = max_failure_rate
        self._shard_retries = shard_retries
        self._progress = progress or Progress()
        self._pool: _Pool | None = None
        self._started_ray = False

    def __enter__(self) -> Executor:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None
        if self._started_ray:
            import ray

            ray.shutdown()
            self._started_ray = False

    def run(self, stage: Stage, resume: Resume = "if-possible") -> StageResult:
        """Make every missing shard of ``stage``.

        Raises:
            PipelineError: of a kind that trying again cannot cure; finished shards are kept.
            TooManyFailures: more rows failed than ``max_failure_rate`` allows.
            StoreError: ``resume`` is "always" and an option has changed.
        """
        shards = self._store.shards(stage.inputs[0])
        if not shards:
            raise InputError(f"stage {stage.name!r} reads {stage.inputs[0]!r}, which has no shards", "run that first")
        record = prepare(self._store, stage, resume)
        done = set(self._store.shards(stage.name))
        for stray in done - set(shards):
            self._store.remove(stage.name, stray)
        todo = [shard for shard in shards if shard not in done]
        if not todo and record.finished:
            return self._finish(record, len(shards))
        clock = _Clock(self._store, record)
        work = self._work(stage, todo)  # starts the workers, which may take a minute that should not count as slowness
        with self._progress.stage(stage.name, self._rows(stage, shards), self._rows(stage, done & set(shards))) as bar:
            for counts in work:
                bar.advance(counts["rows"], counts.get("failed", 0), _extras(counts))
                clock.tick()
        return self._finish(clock.record(), len(done & set(shards)))

    def write(
        self, stage: Stage, make: Callable[[], Mapping[int, pa.Table]], resume: Resume = "if-possible"
    ) -> StageResult:
        """Write a stage that reads no table: ``make`` returns all its shards, and is not called if they still hold."""
        record = prepare(self._store, stage, resume)
        done = self._store.shards(stage.name)
        if record.finished:
            return self._finish(record, len(done))
        clock = _Clock(self._store, record)
        shards = make()
        for stray in set(done) - set(shards):
            self._store.remove(stage.name, stray)
        with self._progress.stage(stage.name, sum(table.num_rows for table in shards.values())) as bar:
            for shard, table in shards.items():
                self._store.write(stage.name, shard, table.cast(stage.schema))
                bar.advance(table.num_rows, failures(table), stage.extras(table))
        return self._finish(clock.record(), 0)

    def _work(self, stage: Stage, todo: list[int]) -> Iterator[dict[str, int]]:
        if not todo:
            return iter(())
        if stage.worker is None:
            return (process_shard(stage, None, self._store.path, shard) for shard in todo)
        return self._warm(stage.worker).run(stage, self._store, todo, self._shard_retries)

    def _warm(self, spec: WorkerSpec) -> _Pool:
        if self._pool is not None and self._pool.spec != spec:
            self._pool.close()
            self._pool = None
        if self._pool is None:
            self._progress.say(f"starting {spec.count} x {spec.kind}")
            self._started_ray = start_ray() or self._started_ray
            self._pool = _Pool(spec)
        return self._pool

    def _rows(self, stage: Stage, shards: Iterable[int]) -> int:
        return sum(self._store.read(stage.inputs[0], shard).num_rows for shard in shards)

    def _finish(self, record: Record, reused: int) -> StageResult:
        status = self._store.table(record.stage).select(["id", "status", "error_type", "error"])
        bad = status.filter(pc.equal(status["status"], "failed"))
        record = replace(record, rows=status.num_rows, failed=bad.num_rows, finished=True)
        self._store.save(record)
        if bad.num_rows > self._max_failure_rate * status.num_rows:
            raise _too_many(record, bad, self._max_failure_rate)
        return StageResult(record.seconds, record.rows, record.failed, reused)


def process_shard(stage: Stage, model: Any, run_path: Path, shard: int) -> dict[str, int]:
    """Make one shard and return its counts. Runs in the driver or in a worker."""
    run = Run(run_path)
    tables = {name: run.read(name, shard) for name in stage.inputs}
    table = stage.process(model, tables).cast(stage.schema)
    run.write(stage.name, shard, table, run.input_digests(stage.inputs, shard))
    return {"rows": tables[stage.inputs[0]].num_rows, "failed": failures(table), **stage.extras(table)}


def failures(table: pa.Table) -> int:
    return int(pc.sum(pc.equal(table["status"], "failed")).as_py() or 0)


def _fail_shard(stage: Stage, run: Run, shard: int, error_type: str, error: str) -> dict[str, int]:
    """Every row of the shard becomes a failed row; a later run tries the shard again."""
    ids = list(dict.fromkeys(run.read(stage.inputs[0], shard)["id"].to_pylist()))
    rows = [{"id": one, **failed(error_type, error)} for one in ids]
    table = pa.Table.from_pylist(rows, schema=stage.schema)
    run.write(stage.name, shard, table, run.input_digests(stage.inputs, shard), retry=True)
    return {"rows": len(ids), "failed": len(ids)}


def _extras(counts: Mapping[str, int]) -> dict[str, int]:
    return {key: value for key, value in counts.items() if key not in ("rows", "failed")}


def _too_many(record: Record, bad: pa.Table, allowed: float) -> TooManyFailures:
    types = collections.Counter(bad["error_type"].to_pylist())
    kind, count = types.most_common(1)[0]
    sample = next(row for row in bad.to_pylist() if row["error_type"] == kind)
    return TooManyFailures(
        f"stage {record.stage!r}: {bad.num_rows} of {record.rows} rows failed, more than max_failure_rate={allowed:g}; "
        f"most often {kind} ({count}), for instance row {sample['id']}: {sample['error']}",
        "correct the cause and run again (what is finished is kept), or raise max_failure_rate",
    )


class _Clock:
    """Adds up the seconds a stage has taken, and writes them down as it goes, so a kill loses a few at most."""

    def __init__(self, run: Run, record: Record) -> None:
        self._run, self._record = run, record
        self._start = self._saved = time.monotonic()

    def record(self) -> Record:
        return replace(self._record, seconds=self._record.seconds + time.monotonic() - self._start)

    def tick(self) -> None:
        if time.monotonic() - self._saved > 2:
            self._saved = time.monotonic()
            self._run.save(self.record())


# ---------------------------------------------------------------------------------------------------------------- Ray


def start_ray() -> bool:
    """Connect to the cluster at ``RAY_ADDRESS``, or start Ray here. Returns whether this call did so."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray otherwise announces a change of its defaults for GPU visibility at every start.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray runs its workers at niceness 15: beside any other busy process an engine would then hardly move.
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray

    # Ray warns about its own defaults at every start; importing it sets the level, so this stands behind.
    logging.getLogger("ray").setLevel(logging.ERROR)
    if ray.is_initialized():
        return False
    try:
        ray.init(
            ignore_reinit_error=True,
            include_dashboard=False,
            log_to_driver=bool(os.environ.get("PIPELINE_WORKER_LOGS")),
            configure_logging=False,
        )
    except Exception as error:  # Ray raises bare Exceptions when it times out
        address = os.environ.get("RAY_ADDRESS")
        where = f"connect to RAY_ADDRESS={address}" if address else "start on this machine"
        raise EngineError(
            f"Ray cannot {where}: {error}", "check RAY_ADDRESS, or free memory and space in /tmp"
        ) from error
    return True


class _Worker:
    """One process of a pool. ``ready`` tells why ``open`` failed; an actor whose __init__ raises only says it died."""

    def __init__(self, spec: WorkerSpec, env: Mapping[str, str]) -> None:
        os.environ.update(env)
        self._error: Exception | None = None
        self._model: Any = None
        try:
            self._model = spec.open()
        except PipelineError as error:
            self._error = error
        except Exception as error:
            self._error = EngineError(
                f"{spec.kind} cannot be opened ({type(error).__name__}: {error})",
                "set PIPELINE_WORKER_LOGS=1 to see the worker's own messages",
            )

    def ready(self) -> None:
        if self._error is not None:
            raise self._error

    def run(self, stage: Stage, run_path: Path, shard: int) -> dict[str, int]:
        return process_shard(stage, self._model, run_path, shard)


@dataclass
class _Task:
    shard: int
    deaths: int = 0


class _Pool:
    """``spec.count`` actors. State: which actor works on which shards."""

    def __init__(self, spec: WorkerSpec) -> None:
        import ray

        self.spec = spec
        self._gpus = spec.gpus if ray.cluster_resources().get("GPU", 0) > 0 else 0.0
        self._check_resources(ray.cluster_resources())
        # Ray would give a worker as many threads as it reserves CPUs: one. All of them would be worse: one core is for
        # Ray and the driver, or the threads that wait for each other at every layer wait for a core as well.
        cores = max(1, (os.cpu_count() or 1) - 1)
        threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores // spec.count))
        self._env = {"OMP_NUM_THREADS": threads, **dict(spec.env)}
        self._actors = [self._start() for _ in range(spec.count)]

    def run(self, stage: Stage, run: Run, shards: Iterable[int], retries: int) -> Iterator[dict[str, int]]:
        """Counts per shard, as they finish."""
        import ray

        path = run.path.resolve()
        # Two queues: a shard that saw its worker die runs alone, so that it cannot take an innocent one along again.
        fresh = collections.deque(_Task(shard) for shard in shards)
        suspects: collections.deque[_Task] = collections.deque()
        flying: dict[Any, tuple[int, _Task]] = {}
        while fresh or suspects or flying:
            for slot, actor in enumerate(self._actors):
                own = [task for at, task in flying.values() if at == slot]
                while (task := _next(fresh, suspects, own)) is not None:
                    flying[actor.run.remote(stage, path, task.shard)] = (slot, task)
                    own.append(task)
            (reference, *_), _rest = ray.wait(list(flying), num_returns=1)
            slot, task = flying.pop(reference)
            try:
                counts: dict[str, int] = ray.get(reference)
            except ray.exceptions.RayError as error:
                _raise_permanent(error)
                self._replace(slot)
                hurt = [task, *(other for at, other in flying.values() if at == slot)]
                flying = {key: value for key, value in flying.items() if value[0] != slot}
                for one in hurt:
                    one.deaths += 1
                    if one.deaths <= retries:
                        suspects.append(one)
                    else:
                        yield _fail_shard(stage, run, one.shard, *_reason(error))
            else:
                yield counts

    def close(self) -> None:
        import ray

        for actor in self._actors:
            ray.kill(actor)
        self._actors = []

    def _start(self) -> Any:
        import ray

        # Threads let the next shard be read while the engine works on this one.
        options = {"num_cpus": self.spec.cpus, "num_gpus": self._gpus, "max_concurrency": IN_FLIGHT}
        remote: Any = ray.remote(_Worker)
        actor = remote.options(**options).remote(self.spec, self._env)
        try:
            ray.get(actor.ready.remote())
        except ray.exceptions.RayError as error:
            _raise_permanent(error)
            raise EngineError(
                f"a worker of {self.spec.kind} died while it started: {_reason(error)[1]}",
                "it may be out of memory; set PIPELINE_WORKER_LOGS=1 to see its own messages",
            ) from error
        return actor

    def _replace(self, slot: int) -> None:
        import ray

        ray.kill(self._actors[slot])
        self._actors[slot] = self._start()

    def _check_resources(self, cluster: Mapping[str, float]) -> None:
        """Ray would wait for ever for a machine that never comes."""
        for name, each in (("CPU", self.spec.cpus), ("GPU", self._gpus)):
            wanted = each * self.spec.count
            if wanted > cluster.get(name, 0):
                raise EngineError(
                    f"{self.spec.count} workers of {self.spec.kind} need {wanted:g} {name}s, "
                    f"the cluster has {cluster.get(name, 0):g}",
                    "lower `workers`, or set RAY_ADDRESS to a larger cluster",
                )


def _next(fresh: collections.deque[_Task], suspects: collections.deque[_Task], own: list[_Task]) -> _Task | None:
    """The next shard for a worker that has ``own`` in flight, or None if it should get no more."""
    if suspects and not own:
        return suspects.popleft()
    if fresh and len(own) < IN_FLIGHT and not any(task.deaths for task in own):
        return fresh.popleft()
    return None


def _raise_permanent(error: Exception) -> None:
    cause = getattr(error, "cause", None)
    if isinstance(cause, PipelineError):
        raise cause from None


def _reason(error: Exception) -> tuple[str, str]:
    """``error_type`` and a message of one line."""
    cause = getattr(error, "cause", None)
    if cause is not None:
        return type(cause).__name__, _line(str(cause))
    lines = [line for line in str(error).splitlines() if line.strip()]
    # Where Ray quotes a traceback, the error itself is its last line.
    quoted = any(line.lstrip().lower().startswith(("traceback", "file ")) for line in lines)
    return "worker_died", _line(lines[-1] if quoted else str(error))


def _line(text: str) -> str:
    return " ".join(text.split())[:300]
