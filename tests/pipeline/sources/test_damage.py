"""A file that was cut off or damaged is never taken for a shorter one."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from source_kit import source

from pipeline.base.errors import InputError
from pipeline.sources.readers import protocol as sources

ROWS = [{"image": f"{i}.png", "prompt": f"What is {i}?"} for i in range(6)]


def jsonl(rows: list[dict[str, str]]) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def table(rows: list[dict[str, str]]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, ["image", "prompt"], quoting=csv.QUOTE_ALL)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue().encode()


def parquet(rows: list[dict[str, str]]) -> bytes:
    out = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), out, row_group_size=2, write_page_checksum=True)
    return out.getvalue()


def llava(rows: list[dict[str, str]]) -> bytes:
    turns = [{"image": row["image"], "conversations": [{"from": "human", "value": row["prompt"]}]} for row in rows]
    return json.dumps(turns).encode()


def coco(rows: list[dict[str, str]]) -> bytes:
    images = [{"id": i, "file_name": row["image"], "width": 4, "height": 4} for i, row in enumerate(rows)]
    return json.dumps({"images": images, "annotations": [], "categories": []}).encode()


FORMATS: dict[str, Callable[[list[dict[str, str]]], bytes]] = {
    "jsonl": jsonl, "csv": table, "parquet": parquet, "llava": llava, "coco": coco,
}  # fmt: skip


def read(path: Path, kind: str) -> list[sources.Entry]:
    return list(sources.entries(source(kind=kind, path=path)))


def whole(path: Path, kind: str) -> int | None:
    """How many good rows there are; None where somebody says that not all are."""
    try:
        entries = read(path, kind)
    except InputError:
        return None
    # A row without a prompt fails when it is admitted, and no row at all ends the run.
    bad = any(entry.error or not all(message["content"] for message in entry.prompt) for entry in entries)
    return None if bad or not entries else len(entries)


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_a_file_that_was_cut_off_is_never_a_shorter_one(tmp_path: Path, kind: str) -> None:
    path, data = tmp_path / "rows", FORMATS[kind](ROWS)
    path.write_bytes(data)
    assert whole(path, kind) == len(ROWS)
    # Behind a whole line, or what only ends it, a text file may end.
    fine = {at for end in range(len(data)) if data[end : end + 1] == b"\n" for at in (end - 1, end, end + 1)}
    for at in range(1, len(data) - 2):
        path.write_bytes(data[:at])
        assert at in fine or whole(path, kind) is None, at


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_zeros_in_place_of_what_a_disk_forgot_are_seen(tmp_path: Path, kind: str) -> None:
    path, data = tmp_path / "rows", FORMATS[kind](ROWS)
    for at in range(0, len(data) - 40, 7):
        path.write_bytes(data[:at] + bytes(32) + data[at + 32 :])
        assert whole(path, kind) in (None, len(ROWS)), at
    path.write_bytes(data + bytes(64))
    assert whole(path, kind) is None


def test_a_quote_that_swallows_rows_is_an_error_and_not_one_row(tmp_path: Path) -> None:
    lines = table(ROWS).decode().splitlines(keepends=True)
    lines[3] = lines[3].rstrip()[:-1] + "\n"  # the closing quote is lost
    (tmp_path / "rows").write_text("".join(lines))
    with pytest.raises(InputError, match=r"line \d+"):
        read(tmp_path / "rows", "csv")


def test_a_saved_dataset_that_was_cut_off_between_two_batches_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    rows = [{"image": None, "prompt": f"{i}"} for i in range(3000)]
    datasets.Dataset.from_list(rows).save_to_disk(str(folder))
    assert len(read(folder, "huggingface")) == 3000
    (path,) = folder.glob("*.arrow")
    data = path.read_bytes()
    starts = [at for at in range(0, len(data), 8) if data.startswith(b"\xff\xff\xff\xff", at)]
    path.write_bytes(data[: starts[-2]])
    assert len(datasets.load_from_disk(str(folder))) == 2000
    with pytest.raises(InputError, match="is cut off at byte"):
        read(folder, "huggingface")
