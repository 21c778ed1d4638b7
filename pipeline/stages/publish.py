"""Write the dataset that others load: ``pairs`` with TRL's columns and provenance, ``candidates`` with every score.

The folder opens with ``datasets.load_from_disk`` (whole, or one config) and ``datasets.load_dataset``, no code of ours
needed. The same tables give the same bytes; rows are sorted by id, whatever shards they came from.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import models
from pipeline.config import Publish
from pipeline.errors import InputError
from pipeline.store import Record, Run, disk_error, make_record, write_text

TABLES = ("source", "sample", "score", "pair")
FOLDER = "dataset"
_MESSAGES = [{"role": {"dtype": "string", "_type": "Value"}, "content": {"dtype": "string", "_type": "Value"}}]


@dataclass(frozen=True)
class Published:
    """``reused`` if the folder was already there, made from the same tables."""

    path: Path
    pairs: int
    candidates: int
    reused: bool


def record(run: Run, spec: Publish) -> Record:
    """What the published folder depends on: the content of the tables, and how it is written."""
    content = models.digest(json.dumps([run.digest(stage, shard) for stage in TABLES for shard in run.shards(stage)]))
    upstream = {name: found.fingerprint for name in TABLES if (found := run.record(name)) is not None}
    return make_record("publish", 1, {**spec.model_dump(), "content": content}, upstream)


def publish(run: Run, spec: Publish, card: Callable[[], str]) -> Published:
    """Write ``run.path/dataset``, or leave it if it holds what it should. ``card`` renders its README.

    Raises:
        InputError: there is not a single pair.
    """
    target = run.path / FOLDER
    new, old = record(run, spec), run.record("publish")
    tables = _Tables(run)
    # Options only: upstream fingerprints may differ though the tables came out the same.
    if old is not None and old.finished and old.own == new.own and target.is_dir():
        return Published(target, len(tables.pairs), old.rows, True)
    if not tables.pairs:
        counts = ", ".join(f"{reason}: {count}" for reason, count in sorted(tables.reasons.items()))
        raise InputError(f"not one of the prompts gave a pair ({counts})", "lower pair.margin, or raise sample.n")
    partial = target.with_name(target.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _write(partial / "pairs", _pair_features(), tables.pair_rows(), spec.rows_per_shard, new.own)
        rows = _write(
            partial / "candidates",
            _candidate_features(spec.images_in_candidates),
            tables.candidate_rows(spec.images_in_candidates),
            spec.rows_per_shard,
            new.own,
        )
        write_text(partial / "dataset_dict.json", json.dumps({"splits": ["pairs", "candidates"]}))
        write_text(partial / "README.md", card())
        _swap(partial, target)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise disk_error(target, error) from error
    run.save(replace(new, rows=rows, finished=True))
    return Published(target, len(tables.pairs), rows, False)


class _Tables:
    """The run's tables, memory-mapped, and where every row lies in them."""

    def __init__(self, run: Run) -> None:
        self._shards = {stage: {s: run.read(stage, s) for s in run.shards(stage)} for stage in TABLES}
        self._at = {
            stage: {one: (s, i) for s, table in shards.items() for i, one in enumerate(table["id"].to_pylist())}
            for stage, shards in self._shards.items()
            if stage != "pair"
        }
        self.pairs: list[dict[str, Any]] = []
        self.reasons: dict[str, int] = {}
        for table in self._shards["pair"].values():
            for row in table.to_pylist():
                if row["chosen"] is not None:
                    self.pairs.append(row)
                else:
                    self.reasons[row["reason"]] = self.reasons.get(row["reason"], 0) + 1
        self.pairs.sort(key=lambda row: (row["id"], row["chosen"], row["rejected"]))

    def pair_rows(self) -> Iterator[dict[str, Any]]:
        for pair in self.pairs:
            prompt, candidates = self._row("source", pair["id"]), self._row("sample", pair["id"])["candidates"]
            sides = {side: candidates[pair[side]] for side in ("chosen", "rejected")}
            yield {
                "images": prompt["images"],
                "prompt": prompt["prompt"],
                **{side: [{"role": "assistant", "content": one["text"]}] for side, one in sides.items()},
                **{key: pair[key] for key in ("id", "policy", "chosen_score", "rejected_score", "margin")},
                "source": prompt["source"],
                **{f"{side}_{key}": one[key] for side, one in sides.items() for key in ("model", "seed")},
            }

    def candidate_rows(self, with_images: bool) -> Iterator[dict[str, Any]]:
        """Every prompt with all its texts; a prompt that failed has none, and says why."""
        for one in sorted(self._at["source"]):
            prompt, sample, score = (self._row(stage, one) for stage in ("source", "sample", "score"))
            broken = next((row for row in (prompt, sample, score) if row["status"] != "ok"), None)
            scores = score["scores"] or []
            yield {
                "id": one,
                **({"images": prompt["images"]} if with_images else {}),
                "prompt": prompt["prompt"],
                "source": prompt["source"],
                "candidates": [
                    {
                        **{key: candidate[key] for key in _CANDIDATE},
                        "scores": [{"name": s["name"], "value": s["values"][i]} for s in scores],
                    }
                    for i, candidate in enumerate(sample["candidates"] or [])
                ],
                "error_type": broken["error_type"] if broken else None,
                "error": broken["error"] if broken else None,
            }

    def _row(self, stage: str, one: str) -> dict[str, Any]:
        shard, index = self._at[stage][one]
        (row,) = self._shards[stage][shard].slice(index, 1).to_pylist()
        return dict(row)


#: Columns of a published candidate, and their type.
_CANDIDATE = {
    "text": "string",
    "origin": "string",
    "model": "string",
    "seed": "int64",
    "temperature": "float64",
    "n_tokens": "int32",
    "finish_reason": "string",
    "logprob": "float64",
}


def _pair_features() -> dict[str, Any]:
    return {
        "images": [{"_type": "Image"}],
        "prompt": _MESSAGES,
        "chosen": _MESSAGES,
        "rejected": _MESSAGES,
        **_values(id="string", source="string", policy="string"),
        **_values(chosen_score="float64", rejected_score="float64", margin="float64"),
        **_values(chosen_model="string", rejected_model="string", chosen_seed="int64", rejected_seed="int64"),
    }


def _candidate_features(with_images: bool) -> dict[str, Any]:
    return {
        **_values(id="string"),
        **({"images": [{"_type": "Image"}]} if with_images else {}),
        "prompt": _MESSAGES,
        **_values(source="string"),
        "candidates": [{**_values(**_CANDIDATE), "scores": [_values(name="string", value="float64")]}],
        **_values(error_type="string", error="string"),
    }


def _values(**types: str) -> dict[str, Any]:
    return {name: {"dtype": dtype, "_type": "Value"} for name, dtype in types.items()}


def _write(
    folder: Path, features: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], per_file: int, fingerprint: str
) -> int:
    """A folder as ``Dataset.save_to_disk`` leaves it, written row group by row group; returns the number of rows.

    Written here because ``save_to_disk`` wants the whole table at once and puts a random fingerprint into it.
    """
    folder.mkdir(parents=True)
    schema = pa.schema([(name, _arrow(feature)) for name, feature in features.items()]).with_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )
    names: list[str] = []
    total = 0
    for chunk in _chunks(rows, per_file):
        names.append(f"data-{len(names):05d}.arrow")
        with (folder / names[-1]).open("wb") as file, pa.ipc.new_stream(file, schema) as writer:
            writer.write_table(pa.Table.from_pylist(chunk, schema=schema), max_chunksize=1000)
        total += len(chunk)
    state: dict[str, Any] = {
        "_data_files": [{"filename": name} for name in names],
        "_fingerprint": fingerprint[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": "train",
    }
    info = {"citation": "", "description": "", "features": features, "homepage": "", "license": ""}
    for name, content in (("state.json", state), ("dataset_info.json", info)):
        write_text(folder / name, json.dumps(content, indent=2, sort_keys=name == "state.json") + "\n")
    return total


def _arrow(feature: Any) -> pa.DataType:
    if isinstance(feature, list):
        return pa.list_(_arrow(feature[0]))
    kind = feature.get("_type")
    if kind == "Value":
        return pa.type_for_alias(feature["dtype"])
    if kind == "Image":
        return pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.struct([(name, _arrow(inner)) for name, inner in feature.items()])


def _chunks(rows: Iterable[Mapping[str, Any]], size: int) -> Iterator[Sequence[Mapping[str, Any]]]:
    chunk: list[Mapping[str, Any]] = []
    for row in rows:
        chunk.append(row)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _swap(partial: Path, target: Path) -> None:
    """Put the new folder in place. Between the two renames there is none, never a mixture."""
    old = target.with_name(target.name + ".old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.rename(old)
    partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)
