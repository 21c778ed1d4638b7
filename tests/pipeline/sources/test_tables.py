"""Tables: jsonl, csv and parquet say the same."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from source_kit import source
from stage_kit import content_id, png

from pipeline.base.errors import InputError
from pipeline.base.images.image_files import load
from pipeline.sources.readers import protocol as sources
from pipeline.sources.stage import SourceStage

FACTS = {"objects": [{"name": "sun", "count": 2, "boxes": [[0, 0, 0.5, 1]]}], "captions": ["two suns, one box"]}
ROWS: list[dict[str, Any]] = [
    {"images": ["in/a.png"], "prompt": "Is there a sun?", "facts": FACTS, "answer": "yes"},
    {"images": ["in/a.png", "in/b.png"], "prompt": 'Compare, "please".', "facts": None, "answer": None},
    {"images": [], "prompt": "Two and two?", "facts": None, "answer": "4"},
]


def write(kind: str, folder: Path, rows: list[dict[str, Any]]) -> Path:
    (folder / "in").mkdir(exist_ok=True)
    for index, name in enumerate("ab"):
        (folder / f"in/{name}.png").write_bytes(png(index))
    path = folder / f"rows.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        with path.open("w", newline="") as file:
            out = csv.DictWriter(file, list(rows[0]))
            out.writeheader()
            for row in rows:
                cells = {**row, "images": json.dumps(row["images"]), "facts": json.dumps(row["facts"] or {})}
                out.writerow(cells if row["facts"] else {**cells, "facts": ""})
    return path


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_table_gives_its_rows(kind: str, tmp_path: Path, make: Any) -> None:
    first, second, third = make(kind=kind, path=write(kind, tmp_path, ROWS))
    assert [row["status"] for row in (first, second, third)] == ["ok"] * 3
    assert first["facts"]["objects"][0]["count"] == 2 and first["facts"]["captions"] == ["two suns, one box"]
    assert [row["facts"] and row["facts"]["answer"] for row in (first, second, third)] == ["yes", None, "4"]
    assert first["images"] == [{"bytes": None, "path": str(tmp_path / "in/a.png")}]
    assert [load(image) for image in second["images"]] == [png(0), png(1)] and third["images"] == []
    assert second["prompt"] == [{"role": "user", "content": 'Compare, "please".'}]
    assert first["id"] == content_id([png(0)], first["prompt"])
    assert second["id"] == content_id([png(0), png(1)], second["prompt"])


def test_one_path_may_stand_in_the_column_image(tmp_path: Path, make: Any) -> None:
    for kind in ("jsonl", "csv", "parquet"):
        path = write(kind, tmp_path, [{"images": [], "prompt": "x", "facts": None}])
        if kind == "csv":
            path.write_text("image,prompt\nin/a.png,x\n")
        elif kind == "jsonl":
            path.write_text(json.dumps({"image": "in/a.png", "prompt": "x"}))
        else:
            pq.write_table(pa.table({"image": ["in/a.png"], "prompt": ["x"]}), path)
        (row,) = make(kind=kind, path=path)
        assert [Path(image["path"]).name for image in row["images"]] == ["a.png"]


def test_parquet_may_hold_the_images_themselves(tmp_path: Path, make: Any) -> None:
    pq.write_table(
        pa.table({"image": [{"bytes": png(0), "path": "a.png"}], "prompt": ["x"]}), tmp_path / "rows.parquet"
    )
    (row,) = make(kind="parquet", path=tmp_path / "rows.parquet")
    assert row["images"] == [{"bytes": png(0), "path": "a.png"}] and row["id"] == content_id([png(0)], row["prompt"])


def test_prompts_of_the_recipe_are_asked_where_a_row_has_none(tmp_path: Path, make: Any) -> None:
    path = write("jsonl", tmp_path, [{"images": ["in/a.png"]}, {"images": ["in/b.png"], "prompt": "own"}])
    texts = [row["prompt"][0]["content"] for row in make(kind="jsonl", path=path, prompts=["one", "two"])]
    assert sorted(texts) == ["one", "own", "two"]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_a_missing_column_is_named_with_its_likely_twin(kind: str, tmp_path: Path, make: Any) -> None:
    path = write(kind, tmp_path, [{"images": ["in/a.png"], "promt": "x", "facts": None}])
    with pytest.raises(InputError, match=r"(?s)rows.*lacks `prompt`.*columns present: .*promt.*did you mean 'promt'"):
        make(kind=kind, path=path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"images": [', "line 1.*JSON"),
        ("[1]", "line 1.*not an object"),
        ('{"prompt": "x"}', "line 1: lacks `images`"),
        ('{"images": [3], "prompt": "x"}', "an image is '3'"),
        ('{"images": [], "prompt": 3}', "`prompt` is '3'"),
        ('{"images": [], "prompt": [{}]}', "`prompt` is"),
    ],
)
def test_a_malformed_line_is_a_failed_row_that_names_it(text: str, says: str, tmp_path: Path, make: Any) -> None:
    (tmp_path / "rows.jsonl").write_text(text)
    with pytest.raises(InputError, match=says):  # there is no other row: the recipe may be wrong
        make(kind="jsonl", path=tmp_path / "rows.jsonl")
    (tmp_path / "rows.jsonl").write_text(f'{text}\n{text}\n{{"images": [], "prompt": "x"}}')
    *bad, good = make(kind="jsonl", path=tmp_path / "rows.jsonl")
    assert [row["error_type"] for row in bad] == ["malformed_row"] * 2 and good["status"] == "ok"
    assert re.search(says, bad[0]["error"]) and "2" in bad[1]["error"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"images": [], "prompt": "x", "facts": {"objcts": []}}', "(?s)objcts.*did you mean 'objects'"),
        ('{"images": [], "prompt": "x", "facts": {"objects": [{"nam": "sun"}]}}', "(?s)'nam'.*did you mean 'name'"),
        (
            '{"images": [], "prompt": "x", "facts": {"objects": [{"name": "a", "count": "many"}]}}',
            "line 1: facts.*count is 'many'",
        ),
        ('{"images": [], "prompt": "x", "facts": {"objects": 3}}', "line 1: facts"),
    ],
)
def test_wrong_facts_are_a_failed_row_though_there_is_no_other(text: str, says: str, tmp_path: Path, make: Any) -> None:
    (tmp_path / "rows.jsonl").write_text(text)
    (row,) = make(kind="jsonl", path=tmp_path / "rows.jsonl")
    assert (row["status"], row["error_type"]) == ("failed", "malformed_facts") and re.search(says, row["error"])


def test_a_thousand_malformed_rows_before_any_other_end_the_run(tmp_path: Path, make: Any) -> None:
    bad, good = '{"promt": "x", "images": []}\n', '{"images": [], "prompt": "x"}\n'
    path = tmp_path / "rows.jsonl"
    path.write_text(bad * 999 + good)
    assert [row["status"] for row in make(kind="jsonl", path=path)].count("failed") == 999
    path.write_text(bad * 1000 + good)
    with pytest.raises(InputError, match=r"(?s)line 1: lacks `prompt`.*did you mean 'promt'.*1000 row"):
        make(kind="jsonl", path=path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("image,prompt\na.png\n", "line 2"),
        ('image,prompt\na.png,"x', "line"),
        ('"image","prompt ,"facts"\na.png,x,\n', "line 1: the header"),
        ("image,prompt,image\na.png,x,b.png\n", "'image' more than once"),
    ],
)
def test_a_malformed_csv_line_is_named(text: str, says: str, tmp_path: Path, make: Any) -> None:
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(InputError, match=says):
        make(kind="csv", path=tmp_path / "rows.csv")


TWICE = '{"image": "a.png", "prompt": "x", "image": "b.png"}'


def test_an_object_with_a_key_twice_is_a_failed_row(tmp_path: Path, make: Any) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png())
    (tmp_path / "rows.jsonl").write_text(f'{TWICE}\n{{"image": "a.png", "prompt": "x"}}\n')
    bad, good = sorted(make(kind="jsonl", path=tmp_path / "rows.jsonl"), key=lambda row: row["status"])
    assert (bad["status"], good["status"]) == ("failed", "ok") and "the key 'image' comes twice" in bad["error"]


def test_a_parquet_column_twice_is_an_error(tmp_path: Path, make: Any) -> None:
    columns = [pa.array([text]) for text in ("a.png", "x", "b.png")]
    pq.write_table(pa.table(columns, names=["image", "prompt", "image"]), tmp_path / "rows.parquet")
    with pytest.raises(InputError, match="'image' comes more than once"):
        make(kind="parquet", path=tmp_path / "rows.parquet")


def test_urls_are_read_through_fsspec(tmp_path: Path, make: Any) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/data/a.png", png(0))
    memory.pipe("/data/rows.jsonl", json.dumps({"images": ["a.png", "../b.png"], "prompt": "x"}).encode())
    memory.pipe("/data/good.jsonl", json.dumps({"images": ["a.png"], "prompt": "x"}).encode())
    (good,) = make(kind="jsonl", path="memory://data/good.jsonl")
    assert good["images"] == [{"bytes": None, "path": "memory://data/a.png"}] and load(good["images"][0]) == png(0)
    (bad,) = make(kind="jsonl", path="memory://data/rows.jsonl")
    assert bad["error_type"] == "path_outside_root"
    write("jsonl", tmp_path, ROWS)
    assert len(make(kind="jsonl", path=f"file://{tmp_path}/rows.jsonl")) == 3
    with pytest.raises(InputError, match=r"memory://data/none\.jsonl"):
        make(kind="jsonl", path="memory://data/none.jsonl")


def test_a_glob_stands_for_several_files(tmp_path: Path, make: Any) -> None:
    for name in "ab":
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"images": [], "prompt": name}))
    assert [row["source"] for row in make(kind="jsonl", path=tmp_path / "*.jsonl")] == ["a.jsonl:1", "b.jsonl:1"]
    with pytest.raises(InputError, match="no file matches"):
        make(kind="jsonl", path=tmp_path / "*.json")


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet"])
def test_options_follow_what_the_input_says_and_not_where_it_lies(kind: str, tmp_path: Path) -> None:
    def options(folder: Path) -> dict[str, Any]:
        return SourceStage(source(kind=kind, path=folder / f"rows.{kind}"), 0, 4).options()

    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    write(kind, here, ROWS)
    first = options(here)
    assert str(tmp_path) not in json.dumps(first)
    here.rename(there)
    assert options(there) == first
    (there / "in/b.png").write_bytes(png(5) + b" ")
    assert options(there) != first, "an image has changed"
    write(kind, there, ROWS[:2])
    assert options(there)["content"] != first["content"]


def test_the_quick_way_to_the_image_paths_finds_what_the_slow_one_does(tmp_path: Path) -> None:
    from pipeline.sources.readers import jsonl

    rows = [{"images": ["a.png", "b.png"], "prompt": "x"}, {"image": "c.png", "prompt": [{"role": "user"}]}]
    quick, slow = tmp_path / "quick.jsonl", tmp_path / "slow.jsonl"
    quick.write_text("".join(json.dumps(row) + "\n" for row in rows))
    slow.write_text(json.dumps({"images": "a.png", "prompt": "x"}) + "\n")  # not a list: Arrow's reader refuses
    assert {name for chunk in jsonl._columns(str(quick)) for name in chunk if name} == {"a.png", "b.png", "c.png"}
    assert [name for chunk in jsonl._columns(str(slow)) for name in chunk] == ["a.png"]


def test_limit_ends_reading(tmp_path: Path) -> None:
    path = write("jsonl", tmp_path, ROWS)
    path.write_text(path.read_text() + "not JSON")
    assert len(list(sources.entries(source(kind="jsonl", path=path, limit=3)))) == 3
    *_, last = sources.entries(source(kind="jsonl", path=path))
    assert last.error and "line 4" in last.error[1]


@pytest.mark.parametrize("path", ["s3://key:hunter2@bucket/a.jsonl", "https://host/a.jsonl?signature=hunter2"])
def test_a_location_with_secrets_is_refused_without_repeating_them(path: str) -> None:
    with pytest.raises(Exception, match="must not hold") as caught:
        source(kind="jsonl", path=path)
    assert "hunter2" not in str(caught.value)
