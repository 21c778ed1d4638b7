"""What is exported is read back as it was, in every format and by every reader of ours: texts, images, ids."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
from export_kit import Row, conversations, message, pair, picture, publish_rows, questions
from hypothesis import HealthCheck, settings
from hypothesis import given as drawn
from hypothesis import strategies as st
from stage_kit import png

from pipeline.base.images import image_files, pixels
from pipeline.base.images.tags import OTHERS, TAG, in_front
from pipeline.exporting import parquet_files
from pipeline.exporting.formats import FORMATS
from pipeline.exporting.write_export import Exported, export
from pipeline.sources.config import PdsSource
from pipeline.sources.readers import pds as source_reader
from training import formats

#: What a trainer opens, below the folder of the export.
OPENED = {
    "llama_factory": "out.json",
    "ms_swift": "out.jsonl",
    "trl": "",
    "rlaif_v": "data/train-00000.parquet",
    "pds": "out.json",
}
#: Formats of one image and one question.
NARROW = ("rlaif_v",)


def export_rows(name: str, rows: Sequence[Mapping[str, Any]], folder: Path, **options: Any) -> Exported:
    return export(FORMATS[name], publish_rows(folder / "dataset", rows), folder / "out", **options)


def as_published(row: Mapping[str, Any]) -> Row:
    """A published row as training sees it: texts, and what is seen in the images."""
    images = [picture(pixels.encode(pixels.decode(image_files.load(image)))) for image in row["images"] or ()]
    parts = [{"role": m["role"], "content": text_parts(m["content"])} for m in row["prompt"]]
    first = next(part for part in parts if part["role"] == "user")
    first["content"] = [{"type": "image", "text": None}] * len(images) + first["content"]
    answers = {
        side: [{**row[side][0], "content": text_parts(row[side][0]["content"])}] for side in ("chosen", "rejected")
    }
    return {"images": images, "prompt": parts, **answers}


def text_parts(text: str) -> list[Row]:
    return [{"type": "text", "text": text}] if text else []


def as_training_reads(name: str, folder: Path) -> tuple[list[str], list[Row]]:
    """Ids and rows."""
    dataset = formats.open(str(folder / OPENED[name]) if OPENED[name] else str(folder))
    dataset = dataset.cast_column("images", datasets.List(datasets.Image(decode=False)))
    rows = dataset.to_list()
    return [row.pop("id") for row in rows], [
        {**row, "images": [picture(image_files.load(image)) for image in row["images"]]} for row in rows
    ]


@pytest.mark.parametrize("name", FORMATS)
def test_training_reads_an_export_as_what_was_published(name: str, tmp_path: Path) -> None:
    rows = questions(tmp_path) + ([] if name in NARROW else conversations(tmp_path))
    done = export_rows(name, rows, tmp_path)
    ids, again = as_training_reads(name, tmp_path / "out")
    assert again == [as_published(row) for row in rows] and done.pairs == len(rows)
    assert len(set(ids)) == len(ids)
    if name not in NARROW:
        assert [pair_id for pair_id in ids if pair_id.startswith("p-") or pair_id == "p"] == [
            "p",
            "p-2",
            "p-3",
            "p-2-2",
        ]
        assert "007" in ids


def test_a_published_dataset_is_read_in_the_same_way(tmp_path: Path) -> None:
    """Negative control of the test above: the reader that all formats are compared by."""
    rows = questions(tmp_path) + conversations(tmp_path)
    dataset = formats.open(str(publish_rows(tmp_path / "dataset", rows)), allowed_roots=("/",))
    assert dataset["prompt"][:] == [as_published(row)["prompt"] for row in rows]
    assert as_published(rows[0])["images"] != as_published(rows[1])["images"]


def test_the_source_reads_pds_as_what_was_published(tmp_path: Path) -> None:
    rows = questions(tmp_path) + conversations(tmp_path)
    export_rows("pds", rows, tmp_path)
    spec = PdsSource(kind="pds", path=str(tmp_path / "out/out.json"))
    again = []
    for entry, (_, chosen, rejected) in zip(source_reader.read(spec), source_reader.answers(spec), strict=True):
        shown = [image_files.load({**image, "path": str(tmp_path / "out" / image["path"])}) for image in entry.images]
        prompt = [dict(turn) for turn in in_front(entry.prompt, len(shown))]
        again.append(([picture(data) for data in shown], prompt, chosen, rejected))
    assert again == [
        (as_published(row)["images"], row["prompt"], row["chosen"][0]["content"], row["rejected"][0]["content"])
        for row in rows
    ]


def test_trl_gets_the_very_columns_that_were_published(tmp_path: Path) -> None:
    rows = [*questions(tmp_path)[7:], pair("none", images=[])]
    export_rows("trl", rows, tmp_path)
    names = ["id", "images", "prompt", "chosen", "rejected"]
    direct = datasets.load_from_disk(str(tmp_path / "dataset"))["pairs"].select_columns(names)
    again = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert again.column_names == names
    assert [again[at]["prompt"] for at in range(len(rows))] == direct["prompt"][:]
    assert again[0]["images"][0].size == (24, 16)  # decoded, and turned upright
    assert again.features["prompt"] == direct.features["prompt"]


def test_rlaif_v_has_its_nine_columns_and_json_where_its_trainer_reads_json(tmp_path: Path) -> None:
    export_rows("rlaif_v", [pair("p"), pair("p"), pair("q")], tmp_path)
    rows = datasets.load_dataset(str(tmp_path / "out"), cache_dir=str(tmp_path / "cache"))["train"]
    assert rows.column_names == (
        ["ds_name", "image", "question", "chosen", "rejected", "origin_dataset", "origin_split", "idx", "image_path"]
    )
    assert [json.loads(split)["id"] for split in rows["origin_split"]] == ["p", "p-2", "q"]
    assert rows["idx"][:] == [0, 1, 2] and rows["ds_name"][0] == "out" and rows["origin_dataset"][0] == "test"
    raw = rows.cast_column("image", datasets.Image(decode=False))[0]["image"]
    assert raw == {"bytes": png(), "path": rows[0]["image_path"]}


def test_parquet_of_several_row_groups_and_files_is_read_as_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_files, "GROUP_ROWS", 3)
    monkeypatch.setattr(parquet_files, "GROUP_BYTES", 2 * len(png()))
    monkeypatch.setattr(parquet_files, "FILE_BYTES", 4 * len(png()))
    rows = [pair(f"p{n}") for n in range(9)] + [pair(f"q{n}", images=[]) for n in range(4)]
    export_rows("trl", rows, tmp_path)
    shapes = [
        [pq.ParquetFile(path).metadata.row_group(at).num_rows for at in range(pq.ParquetFile(path).num_row_groups)]
        for path in sorted((tmp_path / "out/data").iterdir())
    ]
    assert shapes == [[2, 2], [2, 2], [3, 2]]
    ids, again = as_training_reads("trl", tmp_path / "out")
    assert ids == [row["id"] for row in rows] and again == [as_published(row) for row in rows]


letters = st.characters(exclude_categories=["Cs"])
words = st.text(letters, max_size=20).filter(lambda text: not any(tag in text for tag in (TAG, *OTHERS)))
rounds = st.lists(st.tuples(words, words), max_size=2)
drawn_rows = st.builds(
    lambda count, system, before, question, chosen, rejected: pair(
        images=[{"bytes": png(i), "path": None} for i in range(count)],
        prompt=[
            *([message("system", system)] if system else []),
            *(message(role, text) for two in before for role, text in zip(("user", "assistant"), two, strict=True)),
            message("user", question),
        ],
        chosen=[message("assistant", f"{chosen}+")],
        rejected=[message("assistant", f"{rejected}-")],
    ),
    st.integers(0, 2), words, rounds, words, words, words,
)  # fmt: skip


@pytest.mark.parametrize("name", [name for name in FORMATS if name not in NARROW])
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@drawn(rows=st.lists(drawn_rows, min_size=1, max_size=3))
def test_any_texts_come_back(name: str, rows: list[Row], tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("round")
    export_rows(name, rows, folder)
    assert as_training_reads(name, folder / "out")[1] == [as_published(row) for row in rows]


@pytest.mark.parametrize("name", FORMATS)
def test_the_folder_can_be_moved(name: str, tmp_path: Path) -> None:
    rows = questions(tmp_path)[:4]
    export_rows(name, rows, tmp_path)
    (tmp_path / "out").rename(tmp_path / "elsewhere")
    for file in tmp_path.glob("*.*"):
        file.unlink()
    assert len(as_training_reads(name, tmp_path / "elsewhere")[1]) == 4
    text = (path for path in (tmp_path / "elsewhere").rglob("*") if path.is_file())
    assert not any(str(tmp_path).encode() in path.read_bytes() for path in text)
