"""What would go to others of a published dataset, and what must not be in it: paths of this machine, and secrets.

Shards are read batch by batch, every text in them, whatever column it is in; memory does not grow with the dataset.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import yaml

from pipeline.base import dataset_files, files, secrets
from pipeline.base.columns import Ints
from pipeline.base.errors import InputError, shorten
from pipeline.base.local_paths import base_name, is_absolute, own_pattern, own_places, shorten_paths
from pipeline.base.marks import FILE as MARKS
from pipeline.publishing.curated import Curation
from pipeline.publishing.findings import steps
from pipeline.publishing.publish import FOLDER, current
from pipeline.running.store import Run

#: Nothing else goes, whatever somebody has put into the folder.
NAMES = (
    *("README.md", "LICENSE", "dataset_dict.json", "pictures/*"),
    *(f"{config}/{name}" for config in ("pairs", "candidates") for name in ("data-*.arrow", "*.json")),
)
#: What is written in these columns was written by a program, and a path in them is one.
_BY_PROGRAM = frozenset({"source", "error", "model", "chosen_model", "rejected_model"})
_AGAIN = "python -m pipeline.run RECIPE publish.{} --stages publish"
_CONFIGS = {"pairs", "candidates"}


@dataclass(frozen=True)
class OutgoingFile:
    """``name`` is what it will be called, ``path`` where it lies, ``size`` its bytes."""

    name: str
    path: Path
    size: int


def outgoing(run: Run) -> list[OutgoingFile]:
    """The files of the published dataset of a run, by name.

    Raises:
        InputError: there is none, one that is not whole, or one from before pairs were marked otherwise.
    """
    if not files.is_local(run.path):
        raise InputError(f"{run.path} is remote, and is sent from here", "copy the run to a disk of this machine")
    folder = run.path / FOLDER
    published = current(run)
    if published is None:
        raise InputError(
            f"{run.path} has no published dataset", "give the folder of a run, and run it with --stages publish first"
        )
    if published.upstream.get("marks") != Curation.of(run).card_digest().get("marks"):
        raise InputError(
            f"{run.path / MARKS} was changed since the dataset was published", "run with --stages publish again"
        )
    try:
        dataset_files.check(folder)
    except (OSError, ValueError) as error:
        raise InputError(f"the dataset of {run.path} is damaged: {error}", "remove it, and publish again") from error
    return [
        OutgoingFile(name, path, path.stat().st_size)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and is_ours(name := path.relative_to(folder).as_posix())
    ]


def is_ours(name: str) -> bool:
    """Whether a dataset of ours has files of this name.

    >>> is_ours("pairs/data-00000.arrow"), is_ours("notes.txt")
    (True, False)
    """
    return any(fnmatchcase(name, pattern) and name.count("/") == pattern.count("/") for pattern in NAMES)


def check_card(text: str) -> None:
    """Whether others can open and may use what the card describes.

    Raises:
        InputError: its header names no licence, or not where the rows are.
    """
    header = _header(text)
    configs = header.get("configs")
    named = {config.get("config_name") for config in configs or () if isinstance(config, Mapping)}
    if not named >= _CONFIGS:
        raise InputError(
            "README.md: the header does not say where the rows of pairs and candidates are", "publish again"
        )
    if header.get("license") in (None, "other") and not header.get("license_name"):
        raise InputError(
            "README.md: no licence says what others may do with the dataset",
            f"{_AGAIN.format('license=cc-by-4.0')} (license=unknown if nobody can say)",
        )


def check_texts(going: Sequence[OutgoingFile], run: Run) -> None:
    """Whether nothing in the files is this machine's or its user's alone.

    Raises:
        InputError: the first place of a path of this machine or a secret, and what to do.
    """
    named = (text for record in steps(run).values() for text in _strings(record.options) if is_absolute(text))
    search = _Search.of([str(run.path.resolve()), *filter(None, map(_folder, named))])
    for file in going:
        if file.name.endswith(".arrow"):
            _check_shard(file, search)
        elif not file.name.startswith("pictures/"):
            for number, line in enumerate(file.path.read_text(encoding="utf-8").splitlines(), 1):
                if problem := search.problem(line):
                    raise InputError(f"{file.name}, line {number}: {problem}", _remedy(file.name))


@dataclass(frozen=True)
class _Search:
    """``local`` is the pattern of what names a place of this machine, ``any`` that of whatever may be a problem,
    ``values`` are the secrets of the environment."""

    local: str
    any: str
    values: tuple[str, ...]

    @classmethod
    def of(cls, places: Iterable[str]) -> _Search:
        local = own_pattern(own_places(places))
        return cls(local, f"{local}|{secrets.suspect_pattern()}", tuple(secrets.of_environment()))

    def suspects(self, texts: Any) -> Ints:
        """Which of an array of texts to look at one by one; the others are fine."""
        found = pc.match_substring_regex(texts, self.any)
        return np.flatnonzero(pc.fill_null(found, False).to_numpy(zero_copy_only=False))

    def problem(self, text: str) -> str | None:
        if place := re.search(self.local, text):
            return f"names a place of this machine ({place[0].strip()[:80]})"
        # What it is must not be said.
        secret = secrets.holds(text) or any(value in text for value in self.values)
        return "holds what looks like a secret" if secret else None


def _check_shard(file: OutgoingFile, search: _Search) -> None:
    first = 0
    with pa.memory_map(str(file.path)) as source, pa.ipc.open_stream(source) as reader:
        for batch in reader:
            for name, column in zip(batch.schema.names, batch.columns, strict=True):
                for part, texts, rows in _leaves(column, np.arange(len(batch)), name):
                    problem = _first_problem(part, texts, search)
                    if problem is not None:
                        row, said, remedy = int(rows[problem[0]]), *problem[1:]
                        called = f" (id {batch['id'][row].as_py()})" if "id" in batch.schema.names else ""
                        raise InputError(f"{file.name}, row {first + row}{called}, column {part}: {said}", remedy)
            first += len(batch)


def _first_problem(part: str, texts: Any, search: _Search) -> tuple[int, str, str] | None:
    """(which of the texts, what is wrong with it, the remedy)."""
    if part.endswith(".path"):
        # Elsewhere a slash may begin a sentence; here it begins a path.
        for at in np.flatnonzero(pc.fill_null(pc.match_substring_regex(texts, r"^(?:[/\\~]|\w+:)"), False)):
            if is_absolute(texts[int(at)].as_py()):
                said = "an image is a file of this machine, and nobody else has it"
                return int(at), said, _AGAIN.format("images=embed")
    if part.rpartition(".")[2] in _BY_PROGRAM:
        for at, text in enumerate(texts.to_pylist()):
            if text is not None and shorten_paths(base_name(text)) != text:
                return at, f"names a place of this machine ({shorten(text, 80)})", "publish again, with this version"
    for at in search.suspects(texts):
        if problem := search.problem(texts[int(at)].as_py()):
            return int(at), problem, _remedy(part)
    return None


def _leaves(array: Any, rows: Ints, name: str) -> Iterator[tuple[str, Any, Ints]]:
    """The arrays of texts in a column, however deep, with the row of each text."""
    kind = array.type
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        yield name, array, rows
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        yield from _leaves(array.flatten(), rows[pc.list_parent_indices(array).to_numpy()], name)
    elif pa.types.is_struct(kind):
        for field, values in zip(kind, array.flatten(), strict=True):
            yield from _leaves(values, rows, f"{name}.{field.name}")


def _folder(path: str) -> str | None:
    """Where a path leads, if that is on this machine: a prompt may begin with a slash, too."""
    folder = path if os.path.isdir(path) else os.path.dirname(path)
    return folder if os.path.isdir(folder) else None


def _remedy(place: str) -> str:
    if place == "README.md":
        return "change it in the recipe and publish again"
    return "take it out of the source, and run again"


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _strings(inner)


def _header(text: str) -> Mapping[str, Any]:
    parts = text.split("---\n", 2)
    try:
        header = yaml.safe_load(parts[1]) if len(parts) == 3 and not parts[0] else None
    except yaml.YAMLError:
        header = None
    if not isinstance(header, dict):
        raise InputError("README.md: it does not begin with a YAML header between two lines of ---", "publish again")
    return header
