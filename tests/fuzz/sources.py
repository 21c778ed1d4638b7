"""Every kind of source: an odd file is refused by name, or each of its rows comes out, whole or failed."""

from __future__ import annotations

import io
import json
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mutate
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image
from pydantic import TypeAdapter

from pipeline.sources.admission.admit import admit
from pipeline.sources.admission.spool import Blobs
from pipeline.sources.admission.verdicts import Verdicts
from pipeline.sources.kinds import Source
from pipeline.sources.readers import protocol as sources
from pipeline.sources.readers.protocol import Entry

_SPEC: Any = TypeAdapter(Source)
KINDS = tuple(sources.READERS)


def picture(kind: str = "PNG", mode: str = "RGB") -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (6, 4), 3 if mode in ("L", "P", "I;16") else None).save(buffer, kind)
    return buffer.getvalue()


def talk(answer: str = "A dog.") -> list[dict[str, str]]:
    return [{"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": answer}]


OBJECT = {"name": "dog", "count": 2, "attributes": ["red"], "boxes": [[0.1, 0.1, 0.5, 0.5]]}
FACTS = {"objects": [OBJECT], "regions": [{"phrase": "a dog", "box": [0, 0, 1, 1]}], "captions": ["A dog."]}
MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is it?"}]
ROWS = [
    {"images": ["a.png"], "prompt": "What is it?", "facts": FACTS, "answer": "dog"},
    {"image": "b.png", "prompt": MESSAGES, "answer": ["a", "b"]},
    {"images": [], "prompt": "What is 2 + 2?", "answer": 4},
]
#: Of one type in every column, as Arrow wants it.
EVEN = [{"images": ["a.png"], "prompt": text, "facts": FACTS, "answer": "dog"} for text in ("What is it?", "And this?")]
COCO = {
    "images": [{"id": at, "file_name": name, "width": 6, "height": 4} for at, name in ((1, "a.png"), (2, "b.png"))],
    "categories": [{"id": 1, "name": "dog"}, {"id": 2, "name": "cat"}],
    "annotations": [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 3, 3], "iscrowd": 0, "area": 9}],
}  # fmt: skip
REGION = {"region_id": 1, "image_id": 1, "phrase": "a dog", "x": 0, "y": 0, "width": 3, "height": 2}
BASES: dict[str, Any] = {
    "jsonl": ROWS,
    "csv": [{"images": "a.png", "prompt": "What is it?", "answer": "dog", "facts": json.dumps(FACTS)}] * 2,
    "parquet": EVEN,
    "huggingface": EVEN,
    "coco": COCO,
    "visual_genome": [{"id": 1, "regions": [REGION]}, {"id": 2, "regions": [REGION, REGION]}],
    "llava": [{"id": "1", "image": "a.png", "conversations": talk()}, {"conversations": talk()[:1]}],
    "pds": [{"id": 1, "image": "a.png", "conversations": talk(), "rejected_conversations": talk("A cat.")}] * 2,
    "webdataset": [{"prompt": "What is it?", "answer": "dog"}, {"prompt": MESSAGES}],
    "folder": None,
}


def check(kind: str, rng: random.Random, folder: Path) -> str:
    """One odd input of a kind. Returns what became of it.

    Raises:
        UserError: it is refused, by name.
        AssertionError: a row was lost.
    """
    path = _made(kind, rng, folder)
    prompts = [] if kind in ("jsonl", "pds", "webdataset", "llava") else ["Describe the image."]
    options: dict[str, Any] = {"kind": kind, "path": str(path), **({"prompts": prompts} if prompts else {})}
    if kind == "huggingface":
        options["columns"] = {"images": "images"}
    spec = _SPEC.validate_python(options)
    sources.identity(spec)
    entries: list[Entry] = []
    verdicts = Verdicts(1 << 20, 1 << 20, hashed=True)
    blobs = Blobs(folder / "blobs")
    try:
        batches = list(admit(_counted(sources.entries(spec), entries), verdicts, blobs))
    finally:
        verdicts.close()
        blobs.close()
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert len(rows) == len(entries), f"{len(entries)} rows in, {len(rows)} out"
    assert len({row["id"] for row in rows if row["status"] == "failed"}) == sum(r["status"] == "failed" for r in rows)
    for row in rows:
        assert row["id"] and (row["status"] == "ok" or (row["error_type"] and row["error"])), row
        assert len(row["error"] or "") <= 2000
    if kind == "jsonl":
        lines = [line for line in path.read_bytes().split(b"\n") if line and not line.isspace()]
        assert len(rows) == len(lines), f"{len(lines)} lines in, {len(rows)} rows out"
    return "failed row" if any(row["status"] == "failed" for row in rows) else "accepted"


def _counted(entries: Iterator[Entry], kept: list[Entry]) -> Iterator[Entry]:
    for entry in entries:
        kept.append(entry)
        yield entry


def _made(kind: str, rng: random.Random, folder: Path) -> Path:
    for name in ("a.png", "b.png", "1.jpg"):
        (folder / name).write_bytes(picture() if rng.random() < 0.8 else mutate.data(picture(), rng))
    if kind == "folder":
        for at in range(3):
            name = rng.choice(("x.png", "y.JPG", ".z.png", "\udcff.png", "n\n.png", "d/e.gif", "f.webp", "g.bmp"))
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_bytes(mutate.data(picture(), rng) if at == 2 and rng.random() < 0.5 else picture())
        return folder
    if kind == "webdataset":
        return _tar(rng, folder)
    base = mutate.structure(BASES[kind], rng)
    if kind in ("parquet", "huggingface"):
        return _arrow(kind, base, rng, folder)
    if kind in ("jsonl", "csv"):
        rows = base if isinstance(base, list) and base else [base]
        path = folder / f"a.{kind}"
        path.write_bytes(_lines(rows, rng) if kind == "jsonl" else _cells(rows, rng))
        return path
    path = folder / (
        "a.jsonl" if kind in ("llava", "pds") and isinstance(base, list) and rng.random() < 0.3 else "a.json"
    )
    path.write_bytes(_lines(base or [1], rng) if path.suffix == ".jsonl" else mutate.written(base, rng))
    return path


def _lines(rows: list[Any], rng: random.Random) -> bytes:
    good = mutate.text(ROWS[2])
    lines = [good, *(mutate.written(row, rng).replace(b"\n", b" ") for row in rows)]
    return rng.choice((b"\n", b"\n", b"\r\n", b"\n\n")).join(lines)


def _cells(rows: list[Any], rng: random.Random) -> bytes:
    named = [row if isinstance(row, dict) else {"prompt": row} for row in rows]
    columns = list(dict.fromkeys(str(key) for row in named for key in row)) or ["prompt"]
    cells = [columns, *([str(row.get(column, "")) for column in columns] for row in named)]
    quoted = (",".join('"' + cell.replace('"', '""') + '"' for cell in line) for line in cells)
    plain = "\n".join(quoted).encode("utf-8", "surrogatepass")
    return mutate.data(plain, rng) if rng.random() < 0.4 else plain


def _arrow(kind: str, rows: Any, rng: random.Random, folder: Path) -> Path:
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else [rows]
    try:
        table = pa.Table.from_pylist(json.loads(json.dumps(rows)))
    except (pa.ArrowException, TypeError, ValueError, OverflowError, AttributeError):
        # What Arrow holds in no column is held as JSON.
        table = pa.table({"images": [[]], "prompt": [mutate.text(rows)[:2000].decode()], "facts": ["{"]})
    if rng.random() < 0.3:
        strings = [at for at, field in enumerate(table.schema) if pa.types.is_string(field.type)]
        for at in strings[:1]:
            made: Any = table.column(at).combine_chunks()
            made = rng.choice((made.dictionary_encode(), made.cast(pa.large_string()), made.cast(pa.string_view())))
            table = table.set_column(at, table.schema.names[at], made)
    if kind == "huggingface":
        import datasets

        place = folder / "saved"
        try:
            datasets.Dataset(table).save_to_disk(str(place))
        except Exception:  # what the library itself does not write is no input
            datasets.Dataset.from_list([ROWS[2]]).save_to_disk(str(place))
        if rng.random() < 0.3:
            file = rng.choice(sorted(place.iterdir()))
            file.write_bytes(mutate.data(file.read_bytes(), rng))
        return place
    path = folder / "a.parquet"
    try:
        pq.write_table(table, path)
    except (pa.ArrowException, ValueError):
        pq.write_table(pa.table({"images": [["a.png"]], "prompt": ["x"]}), path)
    if rng.random() < 0.3:
        path.write_bytes(mutate.data(path.read_bytes(), rng))
    return path


def _tar(rng: random.Random, folder: Path) -> Path:
    buffer = io.BytesIO()
    samples = mutate.structure(BASES["webdataset"], rng)
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number, sample in enumerate(samples if isinstance(samples, list) else [samples]):
            members = [(f"{number}.png", picture()), (f"{number}.json", mutate.written(sample, rng))]
            if rng.random() < 0.3:
                members.append(
                    (rng.choice(("0.txt", f"{number}.cls", f"._{number}.json", f"{number}.a.jpg")), b"x\xff")
                )
            rng.shuffle(members)
            for name, content in members:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    plain = buffer.getvalue()
    path = folder / "a.tar"
    path.write_bytes(mutate.data(plain, rng) if rng.random() < 0.4 else plain)
    return path
