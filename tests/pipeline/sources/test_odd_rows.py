"""A row of a source that no table can hold, or that no reader can read, is one failed row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stage_kit import png

from pipeline.base.errors import InputError
from pipeline.sources.readers.elements import Unreadable, elements

HALF = "\ud800"


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": f"a{HALF}"},
        {"prompt": [{"role": HALF, "content": "x"}, {"role": "user", "content": "y"}]},
        {"prompt": [{"role": "user", "content": None}]},
        {"prompt": "x", "facts": {"objects": 5}},
        {"prompt": "x", "facts": {"objects": [{"name": "cup", "count": 2**31}]}},
        {"prompt": "x", "facts": {"objects": [{"name": HALF}]}},
        {"prompt": "x", "facts": {"captions": [HALF]}},
        {"prompt": "x", "answer": HALF},
        {"prompt": "x", "images": [f"{HALF}.png"]},
        {"prompt": "x", "images": ["a\0b.png"]},
        '{"prompt": "x", "images": [], "deep": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"prompt": "x", "images": [], "long": ' + "9" * 100_000 + "}",
    ],
    ids=str,
)
def test_a_row_of_a_source_that_cannot_be_kept_fails_alone(row: Any, tmp_path: Path, make: Any) -> None:
    path = tmp_path / "a.jsonl"
    bad = row if isinstance(row, str) else json.dumps({"images": [], **row})
    good = [json.dumps({"images": [], "prompt": f"question {i}"}) for i in range(3)]
    path.write_text("\n".join([good[0], bad, *good[1:]]) + "\n")
    rows = make(kind="jsonl", path=path)
    assert [row["status"] for row in rows].count("ok") == 3 and len(rows) == 4
    (failed_row,) = [row for row in rows if row["status"] == "failed"]
    assert failed_row["error"] and "2" in failed_row["error"] + failed_row["source"]


def written(path: Path, texts: list[str], encoding: str = "utf-8") -> Path:
    path.write_bytes("".join(f"{text}\n" for text in texts).encode(encoding))
    return path


GOOD = [json.dumps({"images": [], "prompt": f"question {i}"}) for i in range(3)]


def test_a_jsonl_with_a_mark_of_the_byte_order_is_read(tmp_path: Path, make: Any) -> None:
    rows = make(kind="jsonl", path=written(tmp_path / "a.jsonl", GOOD, "utf-8-sig"))
    assert [row["status"] for row in rows] == ["ok"] * 3


def test_utf16_is_a_named_error(tmp_path: Path, make: Any) -> None:
    with pytest.raises(InputError, match="is in UTF-16"):
        make(kind="jsonl", path=written(tmp_path / "a.jsonl", GOOD, "utf-16"))


def test_a_line_that_is_not_utf8_fails_alone(tmp_path: Path, make: Any) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([GOOD[0].encode(), b'{"images": [], "prompt": "caf\xe9"}', GOOD[1].encode()]))
    rows = make(kind="jsonl", path=path)
    assert [row["status"] for row in rows] == ["ok", "failed", "ok"]
    assert "line 2: byte 29 of the line is not UTF-8" in rows[1]["error"]


@pytest.mark.parametrize("odd", ["[" * 90_000 + "]" * 90_000, "9" * 9_000, '{"x":' * 50_000 + "1" + "}" * 50_000])
@pytest.mark.parametrize("chunk", [64, 1 << 20])
def test_an_element_that_cannot_be_read_is_skipped_and_the_rest_is_not(odd: str, chunk: int, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(f'[{{"a": "]}}\\""}}, {odd}, {{"b": [{odd}]}}, 7]')
    first, second, third, last = (element for _, element in elements(str(path), chunk))
    assert first == {"a": ']}"'} and last == 7 and isinstance(second, Unreadable) and isinstance(third, Unreadable)


def test_such_an_item_of_instruction_data_fails_alone(tmp_path: Path, make: Any) -> None:
    talk = {"conversations": [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A sun."}]}
    path = tmp_path / "a.json"
    path.write_text(f"[{json.dumps(talk)}, {'[' * 90_000}{']' * 90_000}]")
    rows = make(kind="llava", path=path)
    assert [row["status"] for row in rows] == ["ok", "failed"] and "item 2" in rows[1]["error"]


@pytest.mark.parametrize("path", ["coco", "visual_genome"])
@pytest.mark.parametrize("number", [2**63, -(2**70), float("inf"), float("nan"), 1e308])
def test_a_number_beyond_its_column_is_named(path: str, number: float, tmp_path: Path, make: Any) -> None:
    file = tmp_path / "a.json"
    image = {"id": 1, "file_name": "a.png", "width": 4, "height": 4}
    box = {"image_id": number, "category_id": 1, "bbox": [0, 0, 1, 1]}
    region = {"phrase": "x", "x": 0, "y": 0, "width": 1, "height": 1, "image_id": 1}
    document = {"images": [image], "categories": [{"id": 1, "name": "dog"}], "annotations": [box]}
    file.write_text(json.dumps(document if path == "coco" else [{"id": number, "regions": [region]}]))
    try:
        rows = make(kind=path, path=file)
    except InputError as error:
        assert "element 3" in str(error) or "item 1" in str(error)
    else:
        assert [row["status"] for row in rows] == ["failed"]


TEXTS = {
    "dictionary": lambda values: pa.array(values).dictionary_encode(),
    "large_string": lambda values: pa.array(values, pa.large_string()),
    "string_view": lambda values: pa.array(values, pa.string_view()),
    "list": lambda values: pa.array([[value] for value in values], pa.large_list(pa.large_string())),
    "list of dictionary": lambda values: pa.ListArray.from_arrays(
        pa.array([0, 1], pa.int32()), pa.array(values).dictionary_encode()
    ),
}


@pytest.mark.parametrize("kind", TEXTS)
def test_texts_are_read_however_parquet_holds_them(kind: str, tmp_path: Path, make: Any) -> None:
    (tmp_path / "a.png").write_bytes(png())
    text = TEXTS["dictionary" if "list" in kind else kind]
    table = {"images": TEXTS[kind](["a.png"]), "prompt": text(["What?"]), "answer": text(["sun"])}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    (row,) = make(kind="parquet", path=tmp_path / "a.parquet")
    assert row["status"] == "ok" and len(row["images"]) == 1 and row["facts"]["answer"] == "sun"
    assert row["prompt"] == [{"role": "user", "content": "What?"}]


def test_text_of_a_parquet_that_is_not_utf8_fails_alone(tmp_path: Path, make: Any) -> None:
    bad = pa.Array.from_buffers(
        pa.string(), 2, [None, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"a\xff")]
    )
    pq.write_table(
        pa.table({"images": pa.array([[], []], pa.list_(pa.string())), "prompt": bad}), tmp_path / "a.parquet"
    )
    rows = make(kind="parquet", path=tmp_path / "a.parquet")
    assert [row["status"] for row in rows] == ["ok", "failed"] and "row 2" in rows[1]["error"]
