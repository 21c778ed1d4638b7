"""Files that are not what they should be: read, or one error that names the file or the row."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from training import formats
from training.errors import DataError

ROW = {"image": "a.png", "question": "What?", "chosen": "yes", "rejected": "no"}
LINE = json.dumps(ROW).encode() + b"\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    return tmp_path


def opened(path: Path, data: bytes) -> Any:
    path.write_bytes(data)
    return formats.open(str(path))


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
def test_a_mark_of_the_byte_order_is_no_part_of_the_data(folder: Path, name: str) -> None:
    data = LINE * 2 if name.endswith("l") else json.dumps([ROW, ROW]).encode()
    assert opened(folder / name, codecs.BOM_UTF8 + data).num_rows == 2


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("a.json", json.dumps([ROW])[:-2].encode() + b', "chosen": "no"}]', "the key 'chosen' comes twice"),
        ("a.jsonl", LINE[:-2] + b', "chosen": "no"}\n', "chosen.* twice"),
        ("a.jsonl", LINE.decode().encode("utf-16"), "is in UTF-16; save it as UTF-8"),
        ("a.json", b"", "is empty"),
        ("a.jsonl", b"", "is empty"),
        ("a.json", b" \n ", "is empty"),
        ("a.json", codecs.BOM_UTF8, "is empty"),
        ("a.json", b"[]", "has no rows"),
        ("a.jsonl", LINE + b'{"x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "nested more than 500 levels deep"),
        ("a.jsonl", LINE + b'{"x": ' + b'{"x":' * 50_000 + b"1" + b"}" * 50_000 + b"}\n", "nested more than 500"),
        ("a.jsonl", json.dumps({**ROW, "question": "caf\xe9"}, ensure_ascii=False).encode("latin-1"), "row 0: cannot"),
        ("a.jsonl", json.dumps({**ROW, "question": "a\ud800"}).encode(), "surrogate"),
        ("a.json", json.dumps([ROW, {**ROW, "question": "a\ud83d"}]).encode(), "item 2 holds half of a surrogate pair"),
        ("a.json", json.dumps([{**ROW, "more": [{"a\udc00": 1}]}]).encode(), "item 1 holds half of a surrogate pair"),
        ("a.jsonl", json.dumps([{**ROW, "chosen": "\ude00\ud83d"}]).encode(), "item 1 holds half of a surrogate pair"),
        ("a.jsonl", LINE + json.dumps({**ROW, "chosen": ["a\ud83d"]}).encode(), "surrogate"),
        ("a.jsonl", json.dumps({**ROW, "chosen": "\ud83d"}).encode() + LINE.replace(b'"yes"', b'["yes"]'), "surrogate"),
        (
            "a.json",
            json.dumps([ROW])[:-2].encode() + b', "more": {"a": 1, "a": 1}}]',
            "item 1: the key 'a' comes twice",
        ),
        ("a.json", b"3", "does not begin with an object"),
        ("a.json", b" null", "does not begin with an object"),
        ("a.json", b"[null, {}]", "does not begin with an object"),
        ("a.json", b"[NaN, {}]", "does not begin with an object"),
        ("a.jsonl", b"null\n" + LINE, "does not begin with an object"),
        ("a.jsonl", LINE + b"null\n" + LINE, "line 2 is no object"),
        ("a.jsonl", b"\0" * 99, "does not begin with an object"),
        ("a.parquet", LINE, "cannot be opened"),
    ],
)
def test_what_is_no_dataset_is_one_error(folder: Path, name: str, data: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=reason) as caught:
        opened(folder / name, data)
    assert len(str(caught.value)) < 1000 and name in str(caught.value)


@pytest.mark.parametrize("name", ["a.json", "a.jsonl"])
@pytest.mark.parametrize("escaped", [True, False])
def test_both_halves_of_a_surrogate_pair_are_a_character(folder: Path, name: str, escaped: bool) -> None:
    text = "\U0001f600 \\ud83d"  # what is said of a half is none
    rows = [{**ROW, "question": text}]
    dataset = opened(folder / name, json.dumps(rows if name == "a.json" else rows[0], ensure_ascii=escaped).encode())
    assert dataset[0]["prompt"][0]["content"][1]["text"] == text


def test_brackets_in_texts_are_not_nesting(folder: Path) -> None:
    line = json.dumps({**ROW, "question": '["\\' * 2000}).encode() + b"\n"
    assert opened(folder / "a.jsonl", line * 3).num_rows == 3


TEXTS = {
    "dictionary": lambda values: pa.array(values).dictionary_encode(),
    "large_string": lambda values: pa.array(values, pa.large_string()),
    "string_view": lambda values: pa.array(values, pa.string_view()),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_texts_are_read_however_parquet_holds_them(folder: Path, kind: str) -> None:
    columns = {name: TEXTS[kind]([value, value]) for name, value in ROW.items()}
    pq.write_table(pa.table(columns), folder / "a.parquet")
    rows = formats.open(str(folder / "a.parquet"))
    assert rows.num_rows == 2 and rows[1]["images"][0]["path"] == str(folder / "a.png")
    assert rows[1]["chosen"][0]["content"][0]["text"] == "yes"


@pytest.mark.parametrize("kind", ["dictionary", "large", "fixed"])
def test_lists_of_paths_are_read_however_parquet_holds_them(folder: Path, kind: str) -> None:
    paths = {
        "dictionary": pa.ListArray.from_arrays(pa.array([0, 1], pa.int32()), pa.array(["a.png"]).dictionary_encode()),
        "large": pa.array([["a.png"]], pa.large_list(pa.large_string())),
        "fixed": pa.array([["a.png"]], pa.list_(pa.string(), 1)),
    }
    texts = {name: pa.array([ROW[name]]) for name in ("question", "chosen", "rejected")}
    pq.write_table(pa.table({**texts, "image": paths[kind]}), folder / "a.parquet")
    assert formats.open(str(folder / "a.parquet"))[0]["images"][0]["path"] == str(folder / "a.png")


@pytest.mark.parametrize("column", ["image", "question", "id"])
def test_text_that_is_not_utf8_names_its_row(folder: Path, column: str) -> None:
    bad = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\5\0\0\0\6\0\0\0"), pa.py_buffer(b"a.png\xff")]
    )
    columns = {name: pa.array([value, value]) for name, value in ROW.items()}
    pq.write_table(pa.table({**columns, column: bad}), folder / "a.parquet")
    with pytest.raises(DataError, match=r"row [01]"):
        formats.open(str(folder / "a.parquet"))
