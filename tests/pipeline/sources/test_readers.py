"""Folders, annotations and archives, in the shapes their publishers give them."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import datasets
import fsspec
import pytest
from source_kit import source
from stage_kit import content_id, png

from pipeline.base.errors import InputError
from pipeline.base.images.image_files import load
from pipeline.sources.config import DESCRIBE
from pipeline.sources.readers import protocol as sources
from pipeline.sources.stage import SourceStage


def texts(rows: list[dict[str, Any]]) -> list[str]:
    return [row["prompt"][-1]["content"] for row in rows]


def put(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


# -------------------------------------------------------------------------------------------------------------- folder


def test_a_folder_gives_every_image_with_every_prompt(tmp_path: Path, make: Any) -> None:
    for name in ("a.png", "deep/er/b.PNG", "notes.txt", ".hidden/c.png"):
        put(tmp_path / "in" / name, png(len(name)))
    rows = make(kind="folder", path=tmp_path / "in", prompts=["One?", "Two?"])
    assert sorted({row["source"] for row in rows}) == ["a.png", "deep/er/b.PNG"] and len(rows) == 4
    assert sorted(texts(rows)) == ["One?", "One?", "Two?", "Two?"]
    assert rows[0]["images"] == [{"bytes": None, "path": str(tmp_path / "in/a.png")}]
    assert texts(make(kind="folder", path=tmp_path / "in", limit=1)) == list(DESCRIBE)


def test_a_folder_may_be_a_url(make: Any) -> None:
    fsspec.filesystem("memory").pipe("/pictures/x/a.png", png())
    (row,) = make(kind="folder", path="memory://pictures")
    assert row["images"][0]["path"] == "memory://pictures/x/a.png" and row["status"] == "ok"


def test_options_of_a_folder_follow_its_files(tmp_path: Path) -> None:
    put(tmp_path / "a.png", png())
    before = SourceStage(source(kind="folder", path=tmp_path), 0, 4).options()
    put(tmp_path / "b.png", png(1))
    assert SourceStage(source(kind="folder", path=tmp_path), 0, 4).options() != before
    with pytest.raises(InputError, match="no folder"):
        SourceStage(source(kind="folder", path=tmp_path / "none"), 0, 4).options()


# ---------------------------------------------------------------------------------------------------------------- COCO

INSTANCES = {
    "info": {"year": 2017},
    "licenses": [],
    "images": [
        {"id": 9, "file_name": "9.png", "width": 100, "height": 50, "license": 1},
        {"id": 4, "file_name": "4.png", "width": 10, "height": 10},
    ],
    "annotations": [
        {"id": 1, "image_id": 4, "category_id": 18, "bbox": [0, 0, 5, 5], "iscrowd": 0, "segmentation": [[1, 2]]},
        {"id": 2, "image_id": 9, "category_id": 18, "bbox": [50, 0, 60, 25], "iscrowd": 0},
        {"id": 3, "image_id": 9, "category_id": 1, "bbox": [0, 0, 100, 50], "iscrowd": 1},
        {"id": 4, "image_id": 9, "category_id": 18, "bbox": [10, 10, 10, 10], "iscrowd": 0},
    ],
    "categories": [{"id": 1, "name": "person"}, {"id": 18, "name": "dog", "supercategory": "animal"}],
}
CAPTIONS = {
    "images": [],
    "annotations": [
        {"image_id": 9, "id": 1, "caption": "Two dogs.\n"},
        {"image_id": 4, "id": 2, "caption": "Ein Hündchen."},
        {"image_id": 9, "id": 3, "caption": "A crowd."},
    ],
}


def test_coco_boxes_and_captions_become_facts(tmp_path: Path, make: Any) -> None:
    for name in ("9.png", "4.png"):
        put(tmp_path / "train" / name, png(int(name[0])))
    keys = {"captions": put(tmp_path / "ann/captions.json", CAPTIONS), "root": tmp_path / "train"}
    four, nine = make(kind="coco", path=put(tmp_path / "ann/instances.json", INSTANCES), **keys)
    person, dog = nine["facts"]["objects"]
    assert (dog["name"], dog["count"]) == ("dog", 2)
    assert dog["boxes"][0] == [0.5, 0.0, 1.0, 0.5], "cut off at the edge of the image"
    assert dog["boxes"][1] == pytest.approx([0.1, 0.2, 0.2, 0.4])
    assert (person["name"], person["count"]) == ("person", None), "nobody counted the crowd"
    assert nine["facts"]["captions"] == ["Two dogs.", "A crowd."] and four["facts"]["captions"] == ["Ein Hündchen."]
    assert nine["status"] == "ok" and load(nine["images"][0]) == png(9)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("annotations", [{"image_id": 4, "category_id": 18}], "annotations.*lacks 'bbox'"),
        ("images", [{"id": 1, "file_name": "x", "width": 0, "height": 5}], "width is 0"),
        ("images", [], "lists no images"),
        ("categories", [], "category 18"),
    ],
)
def test_malformed_coco_annotations_are_named(key: str, value: Any, says: str, tmp_path: Path) -> None:
    path = put(tmp_path / "instances.json", {**INSTANCES, key: value})
    with pytest.raises(InputError, match=says):
        list(sources.entries(source(kind="coco", path=path)))


# ------------------------------------------------------------------------------------------------------- Visual Genome


def test_visual_genome_phrases_become_regions(tmp_path: Path, make: Any) -> None:
    from PIL import Image

    put(tmp_path / "VG_100K_2/7.jpg", b"")
    Image.new("RGB", (200, 100)).save(tmp_path / "VG_100K_2/7.jpg")
    region = {"region_id": 1, "image_id": 7, "phrase": "the clock ", "x": 20, "y": 50, "width": 100, "height": 60}
    path = put(tmp_path / "region_descriptions.json", [{"id": 7, "regions": [region]}])
    url = "https://example.org/people/VG_100K_2/7.jpg"
    data = put(
        tmp_path / "image_data.json", [{"image_id": 7, "url": url, "width": 400, "height": 100, "coco_id": None}]
    )
    (measured,), (told,) = make(kind="visual_genome", path=path), make(kind="visual_genome", path=path, image_data=data)
    (box,) = measured["facts"]["regions"]
    assert box["phrase"] == "the clock" and box["box"] == pytest.approx([0.1, 0.5, 0.6, 1.0])
    assert told["facts"]["regions"][0]["box"] == pytest.approx([0.05, 0.5, 0.3, 1.0])
    assert measured["images"] == told["images"] == [{"bytes": None, "path": str(tmp_path / "VG_100K_2/7.jpg")}]


def test_visual_genome_without_the_image_is_a_failed_row(tmp_path: Path, make: Any) -> None:
    path = put(tmp_path / "region_descriptions.json", [{"id": 7, "regions": []}])
    (row,) = make(kind="visual_genome", path=path)
    assert row["error_type"] == "missing_image"
    with pytest.raises(InputError, match="item 1: lacks 'regions'"):
        make(kind="visual_genome", path=put(tmp_path / "region_descriptions.json", [{"id": 7}]))


# --------------------------------------------------------------------------------------------------------------- LLaVA

LLAVA = [
    {
        "id": "000000033471",
        "image": "a.png",
        "conversations": [
            {"from": "human", "value": "What are the colors?\n<image>"},
            {"from": "gpt", "value": "White and red."},
            {"from": "human", "value": "What else?"},
            {"from": "gpt", "value": "Nothing."},
        ],
    },
    {"id": "text", "conversations": [{"from": "system", "value": "Be kind."}, {"from": "human", "value": "Hi"}]},
]


@pytest.mark.parametrize("name", ["llava.json", "llava.jsonl"])
def test_llava_gives_the_first_question(name: str, tmp_path: Path, make: Any) -> None:
    put(tmp_path / "a.png", png())
    lines = "".join(json.dumps(item) + "\n" for item in LLAVA).encode()
    path = put(tmp_path / name, lines if name.endswith("l") else LLAVA)
    seen, text = make(kind="llava", path=path)
    assert texts([seen]) == ["What are the colors?"] and seen["facts"] is None
    assert text["images"] == [] and [m["role"] for m in text["prompt"]] == ["system", "user"]
    other = put(tmp_path / "other.json", [{**LLAVA[0], "answer": "x", "answers": ["y"]}, LLAVA[1]])
    assert make(kind="llava", path=other)[0]["facts"] is None, "the answer is that of the conversation"
    seen, text = make(kind="llava", path=path, use_answers=True)
    assert seen["facts"]["answer"] == "White and red." and text["facts"] is None


@pytest.mark.parametrize(
    ("items", "says"),
    [
        ([{"id": 1}], "item 1: lacks `conversations`"),
        ([{"conversations": [{"value": 1}]}], "not a list of"),
        ({}, "item"),
    ],
)
def test_malformed_llava_items_are_named(items: Any, says: str, tmp_path: Path, make: Any) -> None:
    path = put(tmp_path / "x.json", items or {"a": 1})
    with pytest.raises(InputError, match=says):
        make(kind="llava", path=path)


# ---------------------------------------------------------------------------------------------------------- WebDataset


def tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    return path


SAMPLES = {
    "one/s1.png": png(1),
    "one/s1.json": json.dumps({"prompt": "From JSON?", "answer": "yes", "images": ["/etc/passwd"]}).encode(),
    "s 2#.txt": b"From text?\n",
    "s 2#.0.png": png(2),
    "s 2#.1.png": png(3),
    "s3.png": png(4),
}


def test_webdataset_rows_point_into_the_tar(tmp_path: Path, make: Any) -> None:
    tar(tmp_path / "shard-0.tar", SAMPLES)
    link, first, second, third = make(kind="webdataset", path=tmp_path / "shard-*.tar", prompts=["Else?"])
    assert texts([first, second, third]) == ["From JSON?", "Else?", "Else?"] and first["facts"]["answer"] == "yes"
    assert link["status"] == "failed" and "is a link" in link["error"]
    assert [load(image) for image in second["images"]] == [png(2), png(3)]
    assert load(first["images"][0]) == png(1) and first["images"][0]["bytes"] is None
    assert first["id"] == content_id([png(1)], first["prompt"])


def test_a_tar_may_lie_behind_a_url(tmp_path: Path, make: Any) -> None:
    fsspec.filesystem("memory").pipe("/tars/a.tar", tar(tmp_path / "a.tar", SAMPLES).read_bytes())
    rows = make(kind="webdataset", path="memory://tars/a.tar", prompts=["Else?"])
    assert [load(row["images"][0]) for row in rows[1:]] == [png(1), png(2), png(4)]


def test_a_compressed_or_broken_tar_is_refused(tmp_path: Path) -> None:
    for path in (tar(tmp_path / "a.tar", SAMPLES, "w:gz"), put(tmp_path / "b.tar", b"no tar" * 200)):
        with pytest.raises(InputError, match="uncompressed"):
            list(sources.entries(source(kind="webdataset", path=path, prompts=["x"])))


# -------------------------------------------------------------------------------------------------------- Hugging Face


def test_a_saved_dataset_keeps_its_images_in_the_row(tmp_path: Path, make: Any) -> None:
    features = datasets.Features({"picture": datasets.Image(), "question": datasets.Value("string")})
    rows = {"picture": [{"bytes": png(0), "path": None}], "question": ["What?"]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    columns = {"images": "picture", "prompt": "question"}
    (row,) = make(kind="huggingface", path=tmp_path / "saved", columns=columns)
    assert row["images"][0]["bytes"] == png(0) and texts([row]) == ["What?"] and row["status"] == "ok"
    with pytest.raises(InputError, match=r"(?s)row 1: lacks `prompt`.*picture, question"):
        make(kind="huggingface", path=tmp_path / "saved", columns={"images": "picture"})
    datasets.DatasetDict({"dev": datasets.load_from_disk(tmp_path / "saved")}).save_to_disk(tmp_path / "splits")
    assert len(make(kind="huggingface", path=tmp_path / "splits", split="dev", columns=columns)) == 1
    with pytest.raises(InputError, match="no split 'train'"):
        make(kind="huggingface", path=tmp_path / "splits", columns=columns)


def test_a_dataset_may_hold_lists_of_images(tmp_path: Path, make: Any) -> None:
    features = datasets.Features({"image": datasets.List(datasets.Image()), "prompt": datasets.Value("string")})
    rows = {"image": [[{"bytes": png(0), "path": None}, {"bytes": png(1), "path": None}], []], "prompt": ["a", "b"]}
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "saved")
    two, none = make(kind="huggingface", path=tmp_path / "saved")
    assert [image["bytes"] for image in two["images"]] == [png(0), png(1)] and none["images"] == []


def test_paths_in_a_dataset_obey_its_root(tmp_path: Path, make: Any) -> None:
    put(tmp_path / "secret.png", png(1))
    paths = ["a.png", "../secret.png", str(tmp_path / "secret.png")]
    datasets.Dataset.from_dict({"image": paths, "prompt": ["x"] * 3}).save_to_disk(tmp_path / "saved")
    put(tmp_path / "saved/a.png", png(0))
    rows = make(kind="huggingface", path=tmp_path / "saved")
    assert [row["error_type"] for row in rows] == [None, "path_outside_root", "path_outside_root"]


def test_a_dataset_by_name_is_streamed_and_runs_no_code(monkeypatch: pytest.MonkeyPatch, make: Any) -> None:
    arguments: dict[str, Any] = {}

    def load_dataset(path: str, name: Any, **keys: Any) -> Any:
        arguments.update(keys, path=path)
        rows = [{"image": {"bytes": png(0), "path": "x.png"}, "prompt": "What?"}]
        return datasets.IterableDataset.from_generator(lambda: iter(rows))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    (row,) = make(kind="huggingface", path="owner/name", revision="abc", split="dev")
    assert row["status"] == "ok" and "trust_remote_code" not in arguments
    assert arguments == {"path": "owner/name", "split": "dev", "revision": "abc", "streaming": True}


def test_a_dataset_that_is_not_there_is_named(tmp_path: Path, make: Any) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="cannot open dataset"):
        make(kind="huggingface", path=tmp_path / "empty")
