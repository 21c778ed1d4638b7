"""Entries as Arrow batches: every prompt with its id, where its images are, and whether it can be used."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.errors import InputError
from pipeline.images import public
from pipeline.sources import Entry
from pipeline.sources.spool import Blobs
from pipeline.sources.verdicts import Verdict, Verdicts, key
from pipeline.tables import FACTS, MESSAGE, OK, failed

#: An image on its way through the source: ``digest`` is the front half of the file's, ``hash`` is null unless somebody
#: wants it, and ``offset`` and ``size`` say where embedded bytes lie among the blobs (-1 for a file).
PICTURE = pa.struct(
    [
        ("path", pa.string()),
        ("digest", pa.binary(16)),
        ("hash", pa.uint64()),
        ("offset", pa.int64()),
        ("size", pa.int64()),
    ]
)
ADMITTED = pa.schema(
    [
        ("id", pa.string()),
        ("pictures", pa.list_(PICTURE)),
        ("prompt", pa.list_(MESSAGE)),
        ("facts", FACTS),
        ("source", pa.string()),
        *((name, pa.string()) for name in OK),
    ]
)
_ROWS, _BYTES = 2048, 32 << 20
_encode = json.JSONEncoder(ensure_ascii=False).encode  # dumps() with options builds a new one for every call


def admit(entries: Iterable[Entry], verdicts: Verdicts, blobs: Blobs) -> Iterator[pa.RecordBatch]:
    """Batches of ``ADMITTED`` in the order of ``entries``; embedded bytes go to ``blobs``.

    Raises:
        InputError: facts are not what ``pipeline.tables.FACTS`` says; the message names the row.
    """
    for chunk in _chunks(entries):
        keys = [[key(image, entry.root) for image in entry.images] for entry in chunk]
        wanted = {
            one: (image, entry.root)
            for entry, own in zip(chunk, keys, strict=True)
            for image, one in zip(entry.images, own, strict=True)
        }
        found = verdicts.look(wanted)
        kept: dict[str | bytes, tuple[int, int]] = {
            one: blobs.put(one, image["bytes"]) for one, (image, _) in wanted.items() if isinstance(one, bytes)
        }
        rows = [_row(entry, own, found, kept) for entry, own in zip(chunk, keys, strict=True)]
        yield _batch(rows)


def prompt_id(digests: Iterable[bytes], prompt: Sequence[Mapping[str, str]]) -> str:
    """A hash of what the model sees: digests of the images in order, then role and content of every message."""
    total = hashlib.blake2b(digest_size=12)
    for digest in digests:
        total.update(digest)
    total.update(_encode([[m["role"], m["content"]] for m in prompt]).encode())
    return total.hexdigest()


def _row(
    entry: Entry,
    keys: Sequence[str | bytes],
    found: Mapping[str | bytes, Verdict],
    kept: Mapping[str | bytes, tuple[int, int]],
) -> dict[str, Any]:
    verdicts = [found[one] for one in keys]
    prompt, status = _text(entry.prompt), OK
    if not any(message["role"] == "user" and message["content"].strip() for message in prompt):
        status = failed("empty_prompt", "no message of the user has any text")
    else:
        for index, verdict in enumerate(verdicts):
            if verdict.error_type is not None:
                status = failed(verdict.error_type, f"image {index}: {verdict.error} ({entry.source})")
                break
    pictures = []
    for image, one, verdict in zip(entry.images, keys, verdicts, strict=True):
        offset, size = kept.get(one, (-1, -1))
        # Equal bytes may come under several names.
        path = image["path"] if offset >= 0 else verdict.path
        pictures.append(
            {"path": path, "digest": verdict.digest[:16], "hash": verdict.hash, "offset": offset, "size": size}
        )
    return {
        "id": prompt_id((verdict.digest for verdict in verdicts), prompt),
        "pictures": pictures,
        "prompt": prompt,
        "facts": entry.facts,
        "source": entry.source,
        **status,
    }


def _text(prompt: Sequence[Mapping[str, str]]) -> Sequence[Mapping[str, str]]:
    """JSON may hold half a surrogate pair, which no encoding of text can."""
    try:
        for message in prompt:
            message["content"].encode()
    except UnicodeEncodeError:
        return [{**m, "content": m["content"].encode("utf-8", "replace").decode()} for m in prompt]
    return prompt


def _batch(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    try:
        return pa.RecordBatch.from_pylist(rows, schema=ADMITTED)
    except (TypeError, ValueError, OverflowError):  # Arrow's own errors are of these kinds
        for row in rows:
            try:
                pa.RecordBatch.from_pylist([row], schema=ADMITTED)
            except (TypeError, ValueError, OverflowError) as error:
                remedy = "see pipeline.tables.FACTS for the type of every column"
                raise InputError(f"{public(row['source'])}: facts cannot be stored ({error})", remedy) from error
        raise


def _chunks(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    chunk: list[Entry] = []
    size = 0
    for entry in entries:
        chunk.append(entry)
        size += sum(len(image["bytes"]) for image in entry.images if image["bytes"] is not None)
        if len(chunk) == _ROWS or size > _BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
