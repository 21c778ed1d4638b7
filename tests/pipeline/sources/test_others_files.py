"""Files as other people's tools write them: what is in them is read as it is meant, or fails where it stands."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from stage_kit import png

from pipeline.base.errors import InputError


def csv_rows(folder: Path, make: Any, header: str, *lines: str, encoding: str = "utf-8") -> list[dict[str, Any]]:
    (folder / "a.png").write_bytes(png())
    path = folder / "rows.csv"
    path.write_bytes("\n".join([f"image,{header}", *lines, ""]).encode(encoding))
    rows: list[dict[str, Any]] = make(kind="csv", path=path)
    return sorted(rows, key=lambda row: int(row["source"].rpartition(":")[2]))


# ----------------------------------------------------------------------------------------------------------------- CSV


@pytest.mark.parametrize(
    ("cell", "right"),
    [
        ('"[]"', []),
        ('"[ ""yes"", ""yeah"" ]"', ["yes", "yeah"]),
        ('"[2, 3]"', ["2", "3"]),
        ("[2]", ["2"]),
        ("[maybe]", ["[maybe]"]),
        ("007", ["007"]),
    ],
)
def test_a_list_in_a_cell_of_answers_is_one_however_it_is_spaced(
    cell: str, right: list[str], tmp_path: Path, make: Any
) -> None:
    (row,) = csv_rows(tmp_path, make, "prompt,answer", f"a.png,What?,{cell}")
    facts = row["facts"] or {}
    found = [facts.get("answer"), *(facts.get("answers") or ())] if facts.get("answer") is not None else []
    assert row["status"] == "ok" and list(dict.fromkeys(found)) == right


@pytest.mark.parametrize("column", ["prompt", "answer"])
def test_a_list_that_is_no_json_fails_its_row(column: str, tmp_path: Path, make: Any) -> None:
    cells = {"prompt": "What?", "answer": "yes", column: "\"[{'role': 'user', 'content': 'What?'}]\""}
    good, bad = csv_rows(
        tmp_path, make, "prompt,answer", "a.png,What is it?,yes", f"a.png,{cells['prompt']},{cells['answer']}"
    )
    assert good["status"] == "ok" and bad["status"] == "failed"
    assert f"line 3: `{column}` is " in bad["error"]


def test_messages_in_a_cell_are_read_however_they_are_spaced(tmp_path: Path, make: Any) -> None:
    messages = '[ { ""role"": ""user"", ""content"": ""What?"" } ]'
    rows = csv_rows(tmp_path, make, "prompt", f'a.png,"{messages}"', "a.png,[INST] What? [/INST]", '"a.png","[1, 2]"')
    assert [row["prompt"] for row in rows] == [
        [{"role": "user", "content": text}] for text in ("What?", "[INST] What? [/INST]", "[1, 2]")
    ]


def test_a_row_that_is_not_utf8_fails_alone(tmp_path: Path, make: Any) -> None:
    good, bad = csv_rows(tmp_path, make, "prompt", "a.png,What?", "a.png,Où?", encoding="latin-1")
    assert good["status"] == "ok" and bad["status"] == "failed"
    assert "line 3: is not UTF-8; save the file as UTF-8" in bad["error"]
    with pytest.raises(InputError, match="the header is not UTF-8"):
        csv_rows(tmp_path, make, "prompt,où", "a.png,What?,x", encoding="latin-1")
    with pytest.raises(InputError, match="is in UTF-16"):
        csv_rows(tmp_path, make, "prompt", "a.png,What?", encoding="utf-16")


# ---------------------------------------------------------------------------------------------------------------- COCO


def coco(folder: Path, annotations: list[dict[str, Any]], size: tuple[int, int] = (20, 10), **more: Any) -> Path:
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": size[0], "height": size[1]}],
        "categories": [{"id": 18, "name": "dog"}],
        "annotations": annotations,
        **more,
    }
    (folder / "instances.json").write_text(json.dumps(content))
    return folder / "instances.json"


def picture(folder: Path, size: tuple[int, int], orientation: int | None = None) -> None:
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    Image.new("RGB", size, "red").save(folder / "a.jpg", exif=exif)


DOG = {"id": 5, "image_id": 1, "category_id": 18, "bbox": [0, 0, 5, 10]}


@pytest.mark.parametrize(
    ("size", "orientation", "annotated", "fits"),
    [
        ((20, 10), None, (20, 10), True),
        ((20, 10), 6, (10, 20), True),  # annotated as it is shown
        ((20, 10), 6, (20, 10), False),  # annotated as it is stored
        ((20, 10), 3, (20, 10), True),
        ((20, 10), None, (10, 20), False),
        ((40, 20), None, (20, 10), True),  # scaled
        ((30, 30), None, (20, 10), True),  # stretched: parts of it are where they were
        ((30, 30), 6, (30, 30), True),
    ],
)
def test_boxes_of_a_picture_that_lies_on_its_side_are_nobodys(
    size: tuple[int, int], orientation: int | None, annotated: tuple[int, int], fits: bool, tmp_path: Path, make: Any
) -> None:
    picture(tmp_path, size, orientation)
    (row,) = make(kind="coco", path=coco(tmp_path, [DOG], annotated))
    assert row["status"] == ("ok" if fits else "failed")
    if not fits:
        assert row["error_type"] == "turned_annotations" and "instances.json:1" in row["error"]
    (without,) = make(kind="coco", path=coco(tmp_path, [], annotated))
    assert without["status"] == "ok", "no box, nothing that could be in the wrong place"


def test_regions_of_a_picture_that_lies_on_its_side_are_nobodys_either(tmp_path: Path, make: Any) -> None:
    picture(tmp_path, (20, 10), 6)
    (tmp_path / "1.jpg").write_bytes((tmp_path / "a.jpg").read_bytes())
    region = {"phrase": "a dog", "x": 0, "y": 0, "width": 5, "height": 10}
    regions, sizes = tmp_path / "regions.json", tmp_path / "image_data.json"
    regions.write_text(json.dumps([{"id": 1, "regions": [region]}]))
    sizes.write_text(json.dumps([{"image_id": 1, "width": 20, "height": 10}]))
    (bad,) = make(kind="visual_genome", path=regions, image_data=sizes, root=tmp_path)
    (good,) = make(kind="visual_genome", path=regions, root=tmp_path)
    assert (bad["error_type"], good["status"]) == ("turned_annotations", "ok")


def test_an_annotation_that_comes_twice_counts_once(tmp_path: Path, make: Any) -> None:
    picture(tmp_path, (20, 10))
    other = {**DOG, "id": 6}
    nameless = {key: value for key, value in DOG.items() if key != "id"}
    moved = {**DOG, "bbox": [1, 1, 5, 5]}
    for listed, count in (
        ([DOG, DOG], 1),
        ([DOG, other], 2),
        ([other, DOG, other], 2),
        ([nameless] * 2, 2),
        ([DOG, moved], 2),  # ids that begin anew in every part of a file
        ([DOG, moved, DOG, moved, DOG], 2),
        ([{**DOG, "id": "a-1"}, {**DOG, "id": "a-2"}, {**DOG, "id": "a-1"}], 2),  # any id is one
    ):
        (row,) = make(kind="coco", path=coco(tmp_path, listed))
        (thing,) = row["facts"]["objects"]
        assert (thing["count"], len(thing["boxes"])) == (count, count)


def test_captions_of_another_split_are_an_error(tmp_path: Path, make: Any) -> None:
    picture(tmp_path, (20, 10))
    captions = tmp_path / "captions.json"
    captions.write_text(json.dumps({"annotations": [{"image_id": 7, "id": 1, "caption": "A cat."}]}))
    with pytest.raises(InputError, match=r"no caption is about an image of .*instances\.json"):
        make(kind="coco", path=coco(tmp_path, [DOG]), captions=captions)
    captions.write_text(json.dumps({"annotations": [{"image_id": i, "id": i, "caption": "A dog."} for i in (1, 7)]}))
    (row,) = make(kind="coco", path=coco(tmp_path, [DOG]), captions=captions)
    assert row["facts"]["captions"] == ["A dog."]


# ------------------------------------------------------------------------------------------------- folders, tars, LLaVA


def test_a_link_to_a_folder_is_named_and_a_jfif_is_an_image(tmp_path: Path, make: Any) -> None:
    inner, outer = tmp_path / "in", tmp_path / "out"
    for folder in (inner, outer):
        folder.mkdir()
    Image.new("RGB", (8, 8)).save(inner / "q.jfif", format="JPEG")
    (outer / "b.png").write_bytes(png())
    (inner / "linked").symlink_to(outer)
    rows = {row["source"]: row for row in make(kind="folder", path=inner, prompts=["What?"])}
    assert {name: row["status"] for name, row in rows.items()} == {"q.jfif": "ok", "linked": "failed"}


@pytest.mark.parametrize(
    ("name", "read"),
    [("0.png", True), ("image_1.png", True), ("image.png", True), ("mask.png", False), ("depth.png", False)],
)
def test_a_mask_is_no_picture_of_a_sample(name: str, read: bool, tmp_path: Path, make: Any) -> None:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for member, content in (
            ("good.png", png(2)),
            ("good.txt", b"Who?"),
            ("k.png", png()),
            (f"k.{name}", png(1)),
            ("k.txt", b"What?"),
        ):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    (tmp_path / "a.tar").write_bytes(data.getvalue())
    (row,) = (row for row in make(kind="webdataset", path=tmp_path / "a.tar") if "good" not in row["source"])
    assert (row["status"] == "ok") == read
    assert read or f"unknown extension .{name}" in row["error"]


def llava(folder: Path, make: Any, *turns: tuple[str, str], **more: Any) -> dict[str, Any]:
    conversation = [{"from": speaker, "value": text} for speaker, text in turns]
    (folder / "a.png").write_bytes(png())
    path = folder / "items.json"
    good = {"image": "a.png", "conversations": [{"from": "human", "value": "<image>\nWho?"}]}
    path.write_text(json.dumps([good, {"image": "a.png", "conversations": conversation, **more}]))
    rows = {row["source"]: row for row in make(kind="llava", path=path, use_answers=True)}
    return dict(rows["items.json:2"])


def test_what_the_system_says_is_part_of_the_prompt(tmp_path: Path, make: Any) -> None:
    asked = ("human", "<image>\nWhat?")
    beside = llava(tmp_path, make, asked, ("gpt", "A dog."), system="Be terse.")
    inside = llava(tmp_path, make, ("System", "Be terse."), asked, ("gpt", "A dog."))
    assert beside["prompt"] == inside["prompt"]
    assert [message["role"] for message in beside["prompt"]] == ["system", "user"]


def test_an_answer_behind_a_tool_is_no_answer_to_the_question(tmp_path: Path, make: Any) -> None:
    turns = (
        ("human", "<image>\nHow warm is it?"),
        ("function_call", "{}"),
        ("observation", "20"),
        ("gpt", "20 degrees."),
    )
    row = llava(tmp_path, make, *turns)
    assert row["status"] == "failed" and "a turn from 'function_call'" in row["error"]
    later = llava(tmp_path, make, ("human", "<image>\nWhat?"), ("gpt", "A dog."), ("observation", "20"))
    assert later["status"] == "ok" and later["facts"]["answer"] == "A dog."
