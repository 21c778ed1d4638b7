"""A pool of Ray actors that make shards, and processes that train together. The only module that imports Ray."""

from __future__ import annotations

import collections
import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from pipeline.base import files
from pipeline.base.ending import handlers_kept
from pipeline.base.errors import EngineError, PipelineError
from pipeline.base.hardware import Hardware, Node, has_bfloat16, this_machine
from pipeline.base.model_files import is_small
from pipeline.base.openmp import sharing_cpus
from pipeline.running.heard import Heard
from pipeline.running.stage import Reports, Stage, WorkerSpec
from pipeline.running.store import Run, Shard

#: Shards handed to a worker at a time: the next one is read and its images decoded while the engine is busy.
IN_FLIGHT = 2
#: Seconds between two looks at what the workers are doing.
LIVE_EVERY = 1.0
#: A worker that could not be placed or opened for so many seconds, while no other one works, ends the run.
START_LIMIT = 900.0
#: How often in a row a worker may die while it opens its model.
START_TRIES = 2
#: Names the cluster that ``ray start`` has started on this machine, which Ray joins if nobody names another.
_CLUSTER_HERE = Path("/tmp/ray/ray_current_cluster")
#: What a node's resources call the kind of its GPUs.
_KIND = "accelerator_type:"

Make = Callable[[Stage, Any, Run, int], Shard]


@dataclass(frozen=True)
class Done:
    shard: int
    about: Shard


@dataclass(frozen=True)
class Lost:
    """A shard that took its worker along every time it was tried."""

    shard: int
    error_type: str
    error: str


@dataclass(frozen=True)
class Live:
    """What the workers say of themselves, added up."""

    stats: Mapping[str, int]


def start_ray() -> bool:
    """Connect to the cluster at ``RAY_ADDRESS``, or start Ray here. Returns whether this call did so."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Ray otherwise announces a change of its defaults for GPU visibility at every start.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    # Ray runs its workers at niceness 15: beside any other busy process an engine would then hardly move.
    os.environ.setdefault("RAY_worker_niceness", "0")
    # A shard that was in flight beside one that failed is tried again; nobody asks for its own error.
    os.environ.setdefault("RAY_IGNORE_UNHANDLED_ERRORS", "1")
    # What a killed worker has started, such as vLLM's core, ends with it and gives its GPU back.
    os.environ.setdefault("RAY_process_group_cleanup_enabled", "1")
    import ray

    # Ray warns about its own defaults at every start; importing it sets the level, so this stands behind.
    logging.getLogger("ray").setLevel(logging.ERROR)
    if ray.is_initialized():
        return False
    try:
        with handlers_kept():  # Ray's own leaves with other exit codes
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


def stop_ray() -> None:
    import ray

    ray.shutdown()


def hardware() -> Hardware:
    """Of the cluster that workers would run on: the one at ``RAY_ADDRESS`` or that runs on this machine, else this
    machine alone, for which nothing is started.

    Raises:
        EngineError: there is no cluster at ``RAY_ADDRESS``.
    """
    address = os.environ.get("RAY_ADDRESS")
    # Ray takes `local` for a cluster of its own, on this machine.
    if not _connected() and (address == "local" or not (address or _CLUSTER_HERE.exists())):
        return this_machine()
    started = start_ray()
    try:
        return _cluster()
    finally:
        if started:
            stop_ray()


def _connected() -> bool:
    ray = sys.modules.get("ray")
    return ray is not None and ray.is_initialized()


def _cluster() -> Hardware:
    """Of the cluster that this process is connected to."""
    import ray

    here = ray.get_runtime_context().get_node_id()
    return Hardware(
        tuple(
            Node(
                node["Resources"].get("CPU", 0.0),
                node["Resources"].get("GPU", 0.0),
                has_bfloat16([name.partition(":")[2] for name in node["Resources"] if name.startswith(_KIND)]),
                here=node["NodeID"] == here,
            )
            for node in ray.nodes()
            if node["Alive"]
        )
    )


def run_together(
    function: Callable[[Any], None], argument: Any, workers: int, folder: Path, longest_wait: timedelta
) -> None:
    """Call ``function(argument)`` in ``workers`` processes at once that are one torch process group (Ray Train), in
    which one waits for another for ``longest_wait`` at most.

    Each has a GPU where the cluster has any (nccl), else a CPU (gloo). They run in this process's working directory;
    ``folder`` is Ray's while they do. An exception of ``function`` ends all of them and is raised here.

    Raises:
        EngineError: the cluster cannot hold the workers, or one of them died.
    """
    started = start_ray()
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchConfig, TorchTrainer

    logging.getLogger("ray.train").setLevel(logging.ERROR)
    threads = int(os.environ.get("OMP_NUM_THREADS") or max(1, (os.cpu_count() or 1) // workers))
    here = os.getcwd()

    def call(_: Any) -> None:
        import torch
        from ray.train.torch import get_device

        os.chdir(here)
        torch.set_num_threads(threads)
        if (device := get_device()).type == "cuda":
            torch.cuda.set_device(device)
        function(argument)

    try:
        cluster = ray.cluster_resources()
        gpus = cluster.get("GPU", 0) > 0
        _check_resources("training", workers, {"CPU": 1.0, "GPU": float(gpus)}, cluster)
        TorchTrainer(
            call,
            train_loop_config={},
            torch_config=TorchConfig(timeout_s=int(longest_wait.total_seconds())),
            scaling_config=ScalingConfig(
                num_workers=workers, use_gpu=gpus, resources_per_worker={"CPU": 1} | ({"GPU": 1} if gpus else {})
            ),
            run_config=RunConfig(
                name="train", storage_path=files.absolute(folder), failure_config=FailureConfig(max_failures=0)
            ),
        ).fit()
    except TrainingFailedError as error:
        raise _first_failure(error) from error
    finally:
        if started:
            stop_ray()
        shutil.rmtree(folder, ignore_errors=True)


def _first_failure(error: Any) -> BaseException:
    """What went wrong first: what ``function`` raised, if it did, rather than that a worker lost its neighbour."""
    whole = getattr(error, "cause", error)  # what comes out of an actor wraps what was raised in it
    failures = list(getattr(whole, "worker_failures", {}).values())
    raised = [failure for failure in failures if not type(failure).__module__.startswith("ray.")]
    # A worker whose neighbour is gone fails with torch's RuntimeError.
    raised.sort(key=lambda each: isinstance(each, RuntimeError))
    if raised:
        return raised[0]
    return EngineError(
        f"a training worker died: {_line(str(failures[0] if failures else whole))}",
        "it may be out of memory; the same command continues the run",
    )


class _Worker:
    """One process of a pool. ``ready`` tells why ``open`` failed; an actor whose __init__ raises only says it died."""

    def __init__(self, spec: WorkerSpec, env: Mapping[str, str]) -> None:
        os.environ.update(env)
        self._heard = Heard()
        self._heard.listen()
        self._cpus = sharing_cpus()
        self._cpus.__enter__()  # for as long as this process lives
        self._error: Exception | None = None
        self._model: Any = None
        try:
            self._model = spec.open_model()
        except PipelineError as error:
            self._error = error
        except Exception as error:
            self._error = EngineError(
                f"{spec.kind} cannot be opened ({type(error).__name__}: {error})",
                "set PIPELINE_WORKER_LOGS=1 to see the worker's own messages",
            )

    def ready(self) -> list[str]:
        """What was warned of while the model was opened."""
        if self._error is not None:
            raise self._error
        return self._heard.take()

    def run(self, stage: Stage, make: Make, run_path: str, shard: int) -> tuple[Shard, list[str]]:
        """The shard, and what was warned of since the last one."""
        return make(stage, self._model, Run(run_path), shard), self._heard.take()

    def stats(self) -> dict[str, int]:
        return self._model.stats() if isinstance(self._model, Reports) else {}


@dataclass
class _Task:
    shard: int
    deaths: int = 0


@dataclass
class _Slot:
    """A place for one actor. ``starting`` is set until the actor has opened its model; ``deaths`` counts those that
    died before that, in a row."""

    actor: Any = None
    starting: Any = None
    deaths: int = 0
    own: list[_Task] = field(default_factory=list)


def threads_each(spec: WorkerSpec, workers: int, cores: int) -> int:
    """Threads of each of ``workers`` processes on a machine of ``cores`` CPUs.

    Ray would give a worker as many as it reserves CPUs: one. A small model's passes are so short that Ray and the
    driver need a core beside them, or threads that wait for each other at every layer wait for a core as well; a large
    one's take all cores (SmolLM2-135M on two cores: 1.4 times the answers of one thread).
    """
    spare = 1 if spec.model is None or is_small(spec.model) else 0
    return max(1, (cores - spare) // workers)


class Pool:
    """The actors of one ``WorkerSpec``. State: which actor works on which shards. ``tell`` gets what they are warned
    of."""

    def __init__(
        self, spec: WorkerSpec, tell: Callable[[str], None] = lambda _: None, shards: int | None = None
    ) -> None:
        """``shards`` is how many there are to make: more workers are not started where their number is left open, until
        there are more.

        Raises:
            EngineError: the cluster cannot hold the workers, or none of them can open its model.
        """
        import ray

        self.spec, self._tell = spec, tell
        cluster = ray.cluster_resources()
        self._room = room(spec)
        count = self._count(shards)
        self._gpus = spec.gpus if cluster.get("GPU", 0) > 0 else 0.0
        self._check_resources(cluster, count)
        threads = os.environ.get("OMP_NUM_THREADS") or str(threads_each(spec, count, os.cpu_count() or 1))
        self._env = {"OMP_NUM_THREADS": threads, **dict(spec.env)}
        self._slots: list[_Slot] = []
        self._grow(count)
        self._await_one()

    def run(
        self, stage: Stage, make: Make, path: Path, shards: Collection[int], retries: int
    ) -> Iterator[Done | Lost | Live]:
        """What becomes of every shard, as it becomes so; between whiles, what the workers say of themselves."""
        import ray

        place = files.absolute(path)
        self._grow(self._count(len(shards)))
        # Two queues: a shard that saw its worker die runs alone, so that it cannot take an innocent one along again.
        fresh = collections.deque(_Task(shard) for shard in shards)
        suspects: collections.deque[_Task] = collections.deque()
        flying: dict[Any, tuple[_Slot, _Task]] = {}
        looked, before = time.monotonic(), self.stats().get("tokens", 0)
        while fresh or suspects or flying:
            for slot in self._slots:
                while slot.starting is None and (task := _next(fresh, suspects, slot.own)) is not None:
                    flying[slot.actor.run.remote(stage, make, place, task.shard)] = (slot, task)
                    slot.own.append(task)
            if not flying:
                self._await_one()
                continue
            starting = {slot.starting: slot for slot in self._slots if slot.starting is not None}
            finished, _ = ray.wait([*flying, *starting], num_returns=1, timeout=LIVE_EVERY)
            if time.monotonic() - looked > LIVE_EVERY:
                stats = self.stats()
                yield Live({**stats, "tokens": stats.get("tokens", 0) - before})
                looked = time.monotonic()
            for reference in finished:
                if reference in starting:
                    self._opened(starting[reference])
                    continue
                slot, task = flying.pop(reference)
                try:
                    about, heard = ray.get(reference)
                except ray.exceptions.RayError as error:
                    _raise_permanent(error)
                    hurt, slot.own = slot.own, []
                    flying = {key: value for key, value in flying.items() if value[0] is not slot}
                    self._start(slot)
                    # Of an exception it is known whose it is; who killed a process is not.
                    raised = isinstance(error, ray.exceptions.RayTaskError)
                    for victim in hurt:
                        if raised and victim is not task:
                            fresh.appendleft(victim)
                            continue
                        victim.deaths += 1
                        if victim.deaths <= retries:
                            suspects.append(victim)
                        else:
                            yield Lost(victim.shard, *_reason(error))
                else:
                    slot.own.remove(task)
                    self._pass_on(heard)
                    yield Done(task.shard, about)

    def close(self) -> None:
        import ray

        for slot in self._slots:
            ray.kill(slot.actor)
        self._slots = []

    def _count(self, shards: int | None) -> int:
        return self._room if self.spec.count != "auto" or shards is None else max(1, min(self._room, shards))

    def _grow(self, count: int) -> None:
        """Start workers until there are so many."""
        for _ in range(count - len(self._slots)):
            self._slots.append(_Slot())
            self._start(self._slots[-1])

    def _start(self, slot: _Slot) -> None:
        """Put a new actor into the slot; it is of use once ``starting`` has come back."""
        import ray

        if slot.actor is not None:
            ray.kill(slot.actor)
        # Threads let the next shard be read, and the worker be asked how it is, while the engine works on this one.
        options = {"num_cpus": self.spec.cpus, "num_gpus": self._gpus, "max_concurrency": IN_FLIGHT + 1}
        remote: Any = ray.remote(_Worker)
        slot.actor = remote.options(**options).remote(self.spec, self._env)
        slot.starting = slot.actor.ready.remote()

    def _opened(self, slot: _Slot) -> None:
        """The actor has opened its model, or died over it."""
        import ray

        try:
            self._pass_on(ray.get(slot.starting))
        except ray.exceptions.RayError as error:
            _raise_permanent(error)
            slot.deaths += 1
            if slot.deaths >= START_TRIES:
                raise EngineError(
                    f"a worker of {self.spec.kind} died while it started: {_reason(error)[1]}",
                    "it may be out of memory; set PIPELINE_WORKER_LOGS=1 to see its own messages",
                ) from error
            self._start(slot)
        else:
            slot.starting, slot.deaths = None, 0

    def _pass_on(self, heard: Iterable[str]) -> None:
        for text in heard:
            self._tell(text)

    def _await_one(self) -> None:
        """Wait until some worker is ready; others may still be waiting for a place."""
        import ray

        deadline = time.monotonic() + START_LIMIT
        while all(slot.starting is not None for slot in self._slots):
            starting = {slot.starting: slot for slot in self._slots}
            finished, _ = ray.wait(list(starting), num_returns=1, timeout=max(0.0, deadline - time.monotonic()))
            if not finished:
                raise EngineError(
                    f"no worker of {self.spec.kind} could start within {START_LIMIT:.0f} s",
                    "see what else holds the cluster's resources (ray status), or lower `workers`",
                )
            for reference in finished:
                self._opened(starting[reference])

    def stats(self) -> dict[str, int]:
        """What the workers say of themselves, added up."""
        import ray

        references = [slot.actor.stats.remote() for slot in self._slots if slot.starting is None]
        total: collections.Counter[str] = collections.Counter()
        done, _ = ray.wait(references, num_returns=len(references), timeout=LIVE_EVERY) if references else ([], [])
        for reference in done:
            try:
                total.update(ray.get(reference))
            except ray.exceptions.RayError:  # its death will be noticed where its work is waited for
                continue
        return dict(total)

    def _check_resources(self, cluster: Mapping[str, float], count: int) -> None:
        _check_resources(self.spec.kind, count, {"CPU": self.spec.cpus, "GPU": self._gpus}, cluster)


def room(spec: WorkerSpec) -> int:
    """How many workers the cluster that this process is connected to has for ``spec``, or the recipe says."""
    if spec.count == "auto":
        return _cluster().workers(spec.gpus, spec.cpus)
    return spec.count or max(1, int(sum(node.cpus for node in _cluster().nodes)))


def _check_resources(kind: str, count: int, each: Mapping[str, float], cluster: Mapping[str, float]) -> None:
    """Ray would wait for ever for a machine that never comes."""
    for name, needed in each.items():
        # A share is of one GPU: two of 0.6 do not fit on it, and a third has no place between them.
        shared = name == "GPU" and 0 < needed < 1
        wanted = math.ceil(count / int(1 / needed + 1e-6)) if shared else needed * count
        if wanted > cluster.get(name, 0):
            raise EngineError(
                f"{count} workers of {kind} need {wanted:g} {name}s, the cluster has {cluster.get(name, 0):g}",
                "lower `workers`, or set RAY_ADDRESS to a larger cluster",
            )


def _next(fresh: collections.deque[_Task], suspects: collections.deque[_Task], running: list[_Task]) -> _Task | None:
    """The next shard for a worker that has ``running`` in flight, or None if it should get no more."""
    if suspects and not running:
        return suspects.popleft()
    if fresh and len(running) < IN_FLIGHT and not any(task.deaths for task in running):
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
