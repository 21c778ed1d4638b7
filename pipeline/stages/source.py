"""Images and prompts from wherever a recipe says, as the table every other stage starts from."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.config.source import JsonlSource, ScenesSource
from pipeline.errors import InputError
from pipeline.store import Run
from pipeline.tables import OK, PROMPTS, failed

Row = dict[str, Any]


@dataclass(frozen=True)
class SourceStage:
    """The prompts of a recipe. Has no input table: ``Executor.write`` takes its ``shards``."""

    spec: ScenesSource | JsonlSource
    seed: int
    shard_size: int

    name = "source"
    version = 1
    inputs = ()
    schema = PROMPTS
    worker = None

    def options(self) -> dict[str, Any]:
        if isinstance(self.spec, JsonlSource):
            # What the file says counts, not where it lies.
            return {"kind": "jsonl", "content": _jsonl_digest(self.spec.path), "shard_size": self.shard_size}
        return {**self.spec.model_dump(), "seed": self.seed + self.spec.seed, "shard_size": self.shard_size}

    def shards(self, run: Run) -> dict[int, pa.Table]:
        return slices(run, self.name, self.shard_size, self._rows())

    def process(self, model: Any, tables: Mapping[str, pa.Table]) -> pa.Table:
        raise NotImplementedError("a source has no input shards; use Executor.write")

    def extras(self, table: pa.Table) -> dict[str, int]:
        return {}

    def _rows(self) -> Iterator[Row]:
        if isinstance(self.spec, JsonlSource):
            return read_jsonl(self.spec.path)
        from pipeline.scenes import prompts

        return prompts.build(
            scenes=self.spec.scenes,
            questions_per_scene=self.spec.questions_per_scene,
            prompts=list(self.spec.prompts) or None,
            seed=self.seed + self.spec.seed,
        )


@dataclass(frozen=True)
class BuiltSource:
    """Prompts that ``build(config)`` yields, such as those of an evaluation."""

    name: str
    build: Callable[[Mapping[str, Any]], Iterator[Row]]
    config: Mapping[str, Any]
    shard_size: int

    version = 1
    inputs = ()
    schema = PROMPTS
    worker = None

    def options(self) -> dict[str, Any]:
        return {**self.config, "shard_size": self.shard_size}

    def shards(self, run: Run) -> dict[int, pa.Table]:
        return slices(run, self.name, self.shard_size, self.build(self.config))

    def process(self, model: Any, tables: Mapping[str, pa.Table]) -> pa.Table:
        raise NotImplementedError("a source has no input shards; use Executor.write")

    def extras(self, table: pa.Table) -> dict[str, int]:
        return {}


def slices(run: Run, stage: str, size: int, rows: Iterable[Row]) -> dict[int, pa.Table]:
    """All shards of a source. Prompts that ``run`` already has stay in their shard, new ones get new shards.

    Raises:
        InputError: there is no prompt at all.
    """
    table = make_table(rows)
    if not table.num_rows:
        raise InputError(f"stage {stage!r} has no prompts", "check `source` in the recipe")
    old = run.record(stage)
    same_size = old is not None and old.options.get("shard_size") == size
    before = {shard: run.read(stage, shard)["id"].to_pylist() for shard in run.shards(stage)} if same_size else {}
    at = {one: i for i, one in enumerate(table["id"].to_pylist())}
    return {shard: table.take([at[one] for one in ids]) for shard, ids in layout(list(at), size, before).items()}


def make_table(rows: Iterable[Row]) -> pa.Table:
    """The prompts table, sorted by id; rows with the same images and conversation are merged.

    A row whose image cannot be decoded, or whose prompt is empty, becomes a failed row with the reason.
    """
    unique: dict[str, Row] = {}
    for row in rows:
        images, prompt = list(row["images"]), list(row["prompt"])
        one = content_id([image["bytes"] or image["path"].encode() for image in images], prompt)
        status = row.get("status") or _check(images, prompt)
        if one not in unique:
            unique[one] = {
                "id": one,
                "images": images,
                "prompt": prompt,
                "facts": row.get("facts"),
                "source": row.get("source"),
                **status,
            }
    return pa.Table.from_pylist([unique[one] for one in sorted(unique)], schema=PROMPTS)


def content_id(images: Sequence[bytes], prompt: Sequence[Mapping[str, str]]) -> str:
    """A hash of what the model sees: encoded images in order, then role and content of every message."""
    digest = hashlib.blake2b(digest_size=12)
    for image in images:
        digest.update(hashlib.blake2b(image, digest_size=32).digest())
    digest.update(json.dumps([[m["role"], m["content"]] for m in prompt], ensure_ascii=False).encode())
    return digest.hexdigest()


def layout(ids: Sequence[str], size: int, before: Mapping[int, Sequence[str]]) -> dict[int, list[str]]:
    """Which ids go into which shard. A shard of ``before`` stays if all of its ids are still there.

    >>> layout(["a", "b", "c", "d"], 2, {0: ["b", "d"]})
    {0: ['b', 'd'], 1: ['a', 'c']}
    """
    present = set(ids)
    kept = {shard: list(old) for shard, old in before.items() if present.issuperset(old) and len(old) <= size}
    # A shard that is not full would have to change to take new ids: it stays as it is, too.
    settled = {one for old in kept.values() for one in old}
    rest = sorted(present - settled)
    free = (shard for shard in range(len(kept) + len(rest) + 1) if shard not in kept)
    fresh = {next(free): rest[start : start + size] for start in range(0, len(rest), size)}
    return dict(sorted({**kept, **fresh}.items()))


def read_jsonl(path: Path) -> Iterator[Row]:
    """Rows of a file of ``{"images": [path], "prompt": text or messages, "facts": {...}, "answer": text}`` lines."""
    for number, line in _lines(path):
        value = _parse(path, number, line)
        prompt = value["prompt"]
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
        facts = dict(value.get("facts") or {})
        if value.get("answer") is not None:
            facts["answer"] = str(value["answer"])
        row: Row = {"prompt": messages, "facts": facts or None, "source": f"{path.name}:{number}"}
        try:
            files = [path.parent / image for image in value["images"]]
            yield row | {
                "images": [
                    {"bytes": f.read_bytes(), "path": str(i)} for f, i in zip(files, value["images"], strict=True)
                ]
            }
        except OSError as error:
            lost = [{"bytes": None, "path": str(image)} for image in value["images"]]
            reason = f"line {number}: {error.filename}: {error.strerror}"
            yield row | {"images": lost, "status": failed("missing_image", reason)}


def _parse(path: Path, number: int, line: str) -> dict[str, Any]:
    where = f"{path}, line {number}"
    try:
        value = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: not valid JSON ({error})", "write one object per line") from error
    if not isinstance(value, dict) or "prompt" not in value or not isinstance(value.get("images"), list):
        raise InputError(f"{where}: lacks `images` (a list of paths) or `prompt`", "add them")
    if not isinstance(value["prompt"], str) and not _is_conversation(value["prompt"]):
        raise InputError(f"{where}: `prompt` is {value['prompt']!r}", "give a text or a list of {role, content}")
    unknown = set(value.get("facts") or {}) - {field.name for field in PROMPTS.field("facts").type}
    if unknown:
        raise InputError(f"{where}: unknown facts {sorted(unknown)}", "see pipeline.tables.FACTS for the columns")
    return value


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(m, dict) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in value
    )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        with path.open(encoding="utf-8") as file:
            yield from ((number, line) for number, line in enumerate(file, 1) if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"source.path: cannot read {path}: {error}", "check the path") from error


def _jsonl_digest(path: Path) -> str:
    """Of the lines, and of the size and time of every image they name (reading all images would take too long)."""
    digest = hashlib.blake2b(digest_size=12)
    for number, line in _lines(path):
        digest.update(line.encode())
        for image in _parse(path, number, line)["images"]:
            file = path.parent / image
            stat = file.stat() if file.is_file() else None
            digest.update(f"{stat.st_size}:{stat.st_mtime_ns}".encode() if stat else b"missing")
    return digest.hexdigest()


def _check(images: Sequence[Mapping[str, Any]], prompt: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """The status columns: ok, or what is wrong with the row."""
    if not any(message["role"] == "user" and message["content"].strip() for message in prompt):
        return failed("empty_prompt", "no message of the user has any text")
    for index, image in enumerate(images):
        reason = unreadable(image["bytes"])
        if reason is not None:
            return failed("unreadable_image", f"image {index} ({image['path']}): {reason}")
    return OK


def unreadable(data: bytes | None) -> str | None:
    """Why an encoded image cannot be decoded, or None. Decodes it whole: a truncated file has a good header."""
    from PIL import Image

    if not data:
        return "empty file"
    try:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
    except Exception as error:  # Pillow's plug-ins raise OSError, SyntaxError, ValueError, struct.error and others
        return f"{type(error).__name__}: {error}"
    return None
