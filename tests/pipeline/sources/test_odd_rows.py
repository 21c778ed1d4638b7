"""A row of a source that no table can hold, or that no reader can read, is one failed row."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

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
    assert [one["status"] for one in rows].count("ok") == 3 and len(rows) == 4
    (failed_row,) = [one for one in rows if one["status"] == "failed"]
    assert failed_row["error"] and "2" in failed_row["error"] + failed_row["source"]
