"""What a row looks like in each format of JSON, to the letter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from export_kit import message, pair, publish_rows
from stage_kit import png

from pipeline.exporting.formats import FORMATS
from pipeline.exporting.write_export import export

ROW = pair(prompt=[message("system", "Be brief."), message("user", "What is it?")])
SYSTEM, QUESTION = {"from": "system", "value": "Be brief."}, {"from": "human", "value": "<image>\nWhat is it?"}


def export_rows(name: str, folder: Path, row: dict[str, Any]) -> Path:
    export(FORMATS[name], publish_rows(folder / "dataset", [row]), folder / "cats")
    return folder / "cats"


def test_pds_has_the_four_keys_of_the_format(tmp_path: Path) -> None:
    (item,) = json.loads((export_rows("pds", tmp_path, ROW) / "cats.json").read_text())
    assert item == {
        "id": "p",
        "image": item["image"],
        "conversations": [SYSTEM, QUESTION, {"from": "gpt", "value": "A dog."}],
        "rejected_conversations": [SYSTEM, QUESTION, {"from": "gpt", "value": "A cat."}],
    }
    assert (tmp_path / "cats" / item["image"]).read_bytes() == png()


def test_pds_without_image_has_no_key_for_it(tmp_path: Path) -> None:
    (item,) = json.loads((export_rows("pds", tmp_path, pair(images=[])) / "cats.json").read_text())
    assert "image" not in item and item["conversations"][0] == {"from": "human", "value": "What is it?"}


def test_llama_factory_finds_the_dataset_by_its_name(tmp_path: Path) -> None:
    folder = export_rows("llama_factory", tmp_path, ROW)
    info = json.loads((folder / "dataset_info.json").read_text())
    assert info["cats"] == {
        "file_name": "cats.json",
        "formatting": "sharegpt",
        "ranking": True,
        "columns": {"messages": "conversations", "chosen": "chosen", "rejected": "rejected", "images": "images"},
    }
    (item,) = json.loads((folder / info["cats"]["file_name"]).read_text())
    assert item == {
        "id": "p",
        "conversations": [SYSTEM, {"from": "human", "value": "<image>What is it?"}],
        "chosen": {"from": "gpt", "value": "A dog."},
        "rejected": {"from": "gpt", "value": "A cat."},
        "images": item["images"],
    }
    assert (folder / item["images"][0]).read_bytes() == png()


def test_ms_swift_ends_with_the_chosen_answer(tmp_path: Path) -> None:
    (line,) = (export_rows("ms_swift", tmp_path, ROW) / "cats.jsonl").read_text().splitlines()
    item = json.loads(line)
    assert item == {
        "id": "p",
        "messages": [
            message("system", "Be brief."),
            message("user", "<image>What is it?"),
            message("assistant", "A dog."),
        ],
        "rejected_response": "A cat.",
        "images": item["images"],
    }
    assert (tmp_path / "cats" / item["images"][0]).read_bytes() == png()


def test_a_text_that_begins_with_white_space_keeps_it_behind_a_line_break(tmp_path: Path) -> None:
    row = pair(prompt=[message("user", "\n What?")], images=[{"bytes": png(n), "path": None} for n in range(2)])
    (item,) = json.loads((export_rows("llama_factory", tmp_path, row) / "cats.json").read_text())
    assert item["conversations"][0]["value"] == "<image><image>\n\n What?"
