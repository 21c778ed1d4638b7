"""Pairs that have been tokenised, kept in an Arrow file: every later run on the dataset reads them, and every worker.

To tokenise a dataset every image is decoded, for how many tokens it takes and for what its pixels are called. The file
is named by all that its content depends on, images by their encoded bytes, which take a twentieth of the time to read.
Token ids are int32; a pair becomes Python's numbers when it is asked for, so that memory does not grow with the data.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any, overload

import datasets
import pyarrow as pa
import transformers

from pipeline.base import files
from pipeline.base.images import image_files
from reward.forward.prompt import Prompt
from training.config import TrainConfig
from training.corruption import identity
from training.data.identity import processor_digest
from training.data.pairs import Pair, Skipped
from training.errors import DataError

#: Raised whenever rows become other pairs than before.
VERSION = 3
_IMAGES = ("images", "rejected_images", "similar_images")
#: Rows that are read, or pairs that are written, at a time.
_ROWS = 256
#: Pairs that are kept as Python's numbers: those of a step are asked for several times.
_RECENT = 8192
#: Where a processor lies, and not what it does.
_ASIDE = ("name_or_path", "init_kwargs", "vocab_file", "tokenizer_file")

Prepared = tuple[Sequence[Pair], tuple[Skipped, ...]]
#: What says where pairs stay: given what names them (None: they cannot be kept) and what makes them.
Keep = Callable[[Callable[[], str | None], Callable[[], Iterator[Pair | Skipped]]], Prepared]

_IDS = pa.list_(pa.int32())
_PROMPT = pa.struct(
    {
        "ids": _IDS,
        "images": pa.list_(pa.string()),
        "keys": pa.list_(pa.struct({"name": pa.string(), "values": _IDS})),
        "grids": pa.list_(_IDS),
    }
)
#: ``reason`` says why a row was skipped, and is null for a pair.
SCHEMA = pa.schema(
    {
        "row": pa.int64(),
        **dict.fromkeys(("id", "name", "chosen_text", "reason"), pa.string()),
        **dict.fromkeys(("prompt", "corrupted", "similar"), _PROMPT),
        **dict.fromkeys(("chosen_ids", "rejected_ids", "similar_ids"), _IDS),
    }
)


class StoredPairs(Sequence[Pair]):
    """The pairs of a table of ``SCHEMA``."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table.combine_chunks()
        self._read = lru_cache(maxsize=_RECENT)(self._pair)

    def __len__(self) -> int:
        return self._table.num_rows

    @overload
    def __getitem__(self, place: int) -> Pair: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Pair, ...]: ...
    def __getitem__(self, place: int | slice) -> Pair | tuple[Pair, ...]:
        if isinstance(place, slice):
            return tuple(self[index] for index in range(*place.indices(len(self))))
        if not -len(self) <= place < len(self):
            raise IndexError(f"pair {place} of {len(self)}")
        return self._read(place % len(self))

    def __iter__(self) -> Iterator[Pair]:
        for batch in self._table.to_batches(max_chunksize=_ROWS):
            yield from map(_pair, batch.to_pylist())

    def _pair(self, place: int) -> Pair:
        (row,) = self._table.slice(place, 1).to_pylist()
        return _pair(row)


def in_memory(key: Callable[[], str | None], make: Callable[[], Iterator[Pair | Skipped]]) -> Prepared:
    """Keep pairs nowhere else."""
    results = list(make())
    return (
        tuple(result for result in results if isinstance(result, Pair)),
        tuple(result for result in results if isinstance(result, Skipped)),
    )


def store(path: Path, results: Iterator[Pair | Skipped]) -> None:
    """Write the file as the rows come; where ``results`` raises there is none.

    Raises:
        StoreError: it cannot be written.
    """

    def write(file: Any) -> None:
        with pa.ipc.new_file(file, SCHEMA) as writer:
            while part := list(islice(results, _ROWS)):
                writer.write_table(pa.Table.from_pylist(list(map(_row, part)), schema=SCHEMA))

    files.write_atomic(path, write)


def load(path: Path) -> Prepared:
    """What ``store`` has written, mapped into memory.

    Raises:
        DataError: the file is damaged.
    """
    try:
        table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        if table.schema != SCHEMA:
            raise pa.ArrowInvalid("it has other columns")
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read ({error}); delete the file to prepare the dataset again") from error
    kept = table["reason"].is_null()
    left_out = table.filter(pa.compute.invert(kept)).select(["name", "reason"]).to_pylist()
    pairs = StoredPairs(table.filter(kept) if left_out else table)
    return pairs, tuple(Skipped(row["name"], row["reason"]) for row in left_out)


def key_of(
    rows: datasets.Dataset, processor: Any, config: TrainConfig, positions: int | None, sides: Sequence[str]
) -> str | None:
    """A digest of all that pairs depend on; None where that is not known: with a processor that brings its own code,
    images that are downloaded, or one that cannot be read, which preparing tells better."""
    tokenizer = processor.tokenizer
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None or any(_brings_code(part) for part in (processor, tokenizer, processor.image_processor)):
        return None
    corruption = (identity(config.corruption), config.corruption.model_dump(mode="json"), config.seed)
    parts = {
        "version": (VERSION, transformers.__version__),
        "sides": sides,
        "limits": (positions, config.max_length, config.too_long, config.ties),
        "images": (config.use_images, config.max_image_bytes, config.max_image_pixels),
        "add_bos": config.add_bos,
        "branches": (config.branches, config.probes),
        "corruption": corruption if config.needs_corrupted else None,
        "processors": [_settings(part) for part in (processor, tokenizer, processor.image_processor)],
        "reads_images": processor_digest(processor),  # sizes are objects, which are no settings above
    }
    digest = hashlib.blake2b(json.dumps(parts, sort_keys=True, default=str).encode(), digest_size=16)
    spelling = json.loads(backend.to_str())
    # These two are as the last call has left them.
    digest.update(json.dumps({**spelling, "padding": None, "truncation": None}, sort_keys=True).encode())
    try:
        for start in range(0, len(rows), _ROWS):
            for column, values in sorted(rows[start : start + _ROWS].items()):
                for value in values:
                    _add(digest, column, value)
    except (OSError, ValueError, TypeError):
        return None
    return digest.hexdigest()


def _add(digest: Any, column: str, value: Any) -> None:
    if column not in _IMAGES:
        digest.update(json.dumps([column, value], default=str).encode())
        return
    digest.update(f"{column} {len(value or ())}".encode())
    for item in value or ():
        if item["bytes"] is None and image_files.is_url(item["path"]):
            raise ValueError("it would be downloaded twice")
        data = image_files.load(item)
        digest.update(f" {len(data)} ".encode() + hashlib.blake2b(data, digest_size=16).digest())


def _settings(part: Any) -> Any:
    """What a processor or tokenizer has been set to."""
    values = {
        name: str(value)
        for name, value in vars(part).items()
        if isinstance(value, str | int | float | bool | list | tuple | dict | None) and name not in _ASIDE
    }
    return type(part).__name__, values


def _brings_code(part: Any) -> bool:
    return type(part).__module__.startswith("transformers_modules")


def _row(result: Pair | Skipped) -> dict[str, Any]:
    if isinstance(result, Skipped):
        return {"name": result.name, "reason": result.reason}
    columns = ("row", "id", "name", "chosen_text", "chosen_ids", "rejected_ids", "similar_ids")
    prompts = {name: _prompt_row(getattr(result, name)) for name in ("prompt", "corrupted", "similar")}
    return {name: getattr(result, name) for name in columns} | prompts


def _prompt_row(prompt: Prompt | None) -> dict[str, Any] | None:
    if prompt is None:
        return None
    keys = [{"name": name, "values": values} for name, values in prompt.keys.items()]
    return {"ids": prompt.ids, "images": prompt.images, "keys": keys, "grids": prompt.grids}


def _pair(row: Mapping[str, Any]) -> Pair:
    values: dict[str, Any] = {name: row[name] for name in ("row", "id", "name", "chosen_text")}
    values |= {name: _prompt(row[name]) for name in ("prompt", "corrupted", "similar")}
    values |= {name: tuple(row[name]) for name in ("chosen_ids", "rejected_ids", "similar_ids")}
    return Pair(**values)


def _prompt(row: Mapping[str, Any] | None) -> Prompt | None:
    if row is None:
        return None
    keys = {key["name"]: tuple(key["values"]) for key in row["keys"]}
    return Prompt(tuple(row["ids"]), tuple(row["images"]), keys, tuple(map(tuple, row["grids"])))
