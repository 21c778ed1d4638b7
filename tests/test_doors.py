"""The same awkward rows through every door: all sources of a recipe, and all schemas of a dataset to train on.

Each row is an image count, or what the error says. Nothing is read without its image, and nothing is lost.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.recipe.load import make_recipe
from pipeline.running.store import Run
from pipeline.sources.stage import SourceStage
from training import formats
from training.errors import DataError


class Awkward(NamedTuple):
    """What a row has besides its texts, what is asked, and how many images it has or what the error says."""

    keys: dict[str, Any]
    question: str
    right: int | str


Q = "What is it?"
ROWS = {
    "one image": Awkward({"images": ["a.png"]}, Q, 1),
    "no image": Awkward({"images": []}, Q, 0),
    "null beside a filled one": Awkward({"images": None, "image": "a.png"}, Q, 1),
    "an empty list beside a filled one": Awkward({"images": [], "image": "a.png"}, Q, 1),
    "an empty text beside a filled one": Awkward({"image": "", "images": ["a.png", "b.png"]}, Q, 2),
    "image_path": Awkward({"image_path": "a.png"}, Q, 1),
    "image_path beside null": Awkward({"image": None, "image_path": "a.png"}, Q, 1),
    "image_paths": Awkward({"image_paths": ["a.png", "b.png"]}, Q, 2),
    "img": Awkward({"img": "a.png"}, Q, 1),
    "img_path": Awkward({"img_path": "a.png"}, Q, 1),
    "two that are equal": Awkward({"images": ["a.png"], "image": "a.png"}, Q, 1),
    "two that differ": Awkward({"images": ["a.png"], "image": "b.png"}, Q, "`images` and `image` name different"),
    "three of which two differ": Awkward(
        {"image": "a.png", "image_path": "a.png", "img": "b.png"}, Q, "`image` and `img` name different"
    ),
    "more in one than in the other": Awkward(
        {"images": ["a.png", "b.png"], "image": "a.png"}, Q, "`images` and `image` name different"
    ),
    "a video": Awkward({"images": ["a.png"], "videos": ["v.mp4"]}, Q, "`videos` is filled, and only images"),
    "a sound": Awkward({"images": ["a.png"], "audio": "v.mp3"}, Q, "`audio` is filled"),
    "a video and nothing else": Awkward({"images": None, "video": "v.mp4"}, Q, "`video` is filled"),
    "another name that nobody reads": Awkward({"images": None, "scan_file": "a.png"}, Q, "`scan_file` holds 'a.png'"),
    "a tag": Awkward({"images": ["a.png"]}, f"<image>\n{Q}", 1),
    "two tags": Awkward({"images": ["a.png", "b.png"]}, f"<image>\n<image>\n{Q}", 2),
    "a tag without an image": Awkward({"images": []}, f"<image>\n{Q}", r"1 <image> tag\(s\) for 0 image\(s\)"),
    "two tags for one image": Awkward({"images": ["a.png"]}, f"<image> <image>\n{Q}", r"2 <image> tag\(s\) for 1"),
    "one tag for two images": Awkward({"images": ["a.png", "b.png"]}, f"<image>\n{Q}", r"1 <image> tag\(s\) for 2"),
    **{
        tag: Awkward({"images": ["a.png"]}, f"{tag}\n{Q}", re.escape(f"{tag} in a text"))
        for tag in ("<video>", "<audio>", "<bbox>", "<ref-object>")
    },
}  # fmt: skip


def pictures(folder: Path) -> None:
    for name, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (8, 8), colour).save(folder / f"{name}.png")


# ------------------------------------------------------------------------------------------------------------- sources


def _whole(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """For tables, in which every row has every column."""
    return [dict.fromkeys(key for row in rows for key in row) | row for row in rows]


def _jsonl(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"kind": "jsonl", "path": folder / "rows.jsonl"}


def _csv(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    import csv

    with (folder / "rows.csv").open("w", newline="") as file:
        out = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)), restval="")
        out.writeheader()
        out.writerows({k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()} for row in rows)
    return {"kind": "csv", "path": folder / "rows.csv"}


def _parquet(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    pq.write_table(pa.Table.from_pylist(_whole(rows)), folder / "rows.parquet")
    return {"kind": "parquet", "path": folder / "rows.parquet"}


def _huggingface(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    datasets.disable_progress_bars()
    datasets.Dataset.from_list(_whole(rows)).save_to_disk(folder / "saved")
    return {"kind": "huggingface", "path": folder / "saved", "root": folder}


def _llava(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    items = [{**row, "conversations": [{"from": "human", "value": row["prompt"]}]} for row in rows]
    (folder / "rows.json").write_text(json.dumps([{k: v for k, v in i.items() if k != "prompt"} for i in items]))
    return {"kind": "llava", "path": folder / "rows.json"}


def _pds(folder: Path, rows: list[dict[str, Any]]) -> dict[str, Any]:
    items = []
    for row in rows:
        question = {"from": "human", "value": row["prompt"]}
        sides = {"conversations": "a", "rejected_conversations": "b"}
        turns = {side: [question, {"from": "gpt", "value": text}] for side, text in sides.items()}
        items.append({**{k: v for k, v in row.items() if k != "prompt"}, **turns})
    (folder / "rows.json").write_text(json.dumps(items))
    return {"kind": "pds", "path": folder / "rows.json"}


SOURCES: dict[str, Callable[[Path, list[dict[str, Any]]], dict[str, Any]]] = {
    "jsonl": _jsonl, "csv": _csv, "parquet": _parquet, "huggingface": _huggingface, "llava": _llava, "pds": _pds,
}  # fmt: skip


def prompts(folder: Path, keys: dict[str, Any]) -> list[dict[str, Any]]:
    """All rows of a source, in the order of the input."""
    values = {"name": "x", "sample": {"model": "m"}, "pair": {"weights": {"correctness": 1}}, "source": keys}
    stage = SourceStage(make_recipe(values).source, 0, 9)
    stage.options()
    rows = [row for _, table in stage.shards(Run(folder / "run")) for row in table.to_pylist()]
    return sorted(rows, key=lambda row: int(row["source"].rpartition(":")[2]))


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_reads_the_images_or_says_why_not(kind: str, tmp_path: Path) -> None:
    pictures(tmp_path)
    rows = [{**row.keys, "prompt": f"{row.question} ({name})"} for name, row in ROWS.items()]
    results = prompts(tmp_path, SOURCES[kind](tmp_path, [*rows, {**rows[0], "prompt": "last"}]))
    assert len(results) == len(ROWS) + 1
    for (name, row), made in zip(ROWS.items(), results, strict=False):
        if isinstance(row.right, int):
            assert (made["status"], made["error"], len(made["images"])) == ("ok", None, row.right), name
            assert made["prompt"] == [{"role": "user", "content": f"{Q} ({name})"}]
        else:
            assert made["status"] == "failed" and re.search(row.right, made["error"]), (name, made["error"])
            assert made["error_type"] in ("ambiguous_images", "unread_media", "image_tags"), name


@pytest.mark.parametrize("kind", ["folder", "coco", "visual_genome", "webdataset"])
def test_tags_in_the_prompts_of_a_recipe_are_the_images_too(kind: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pictures(tmp_path / "in")
    (tmp_path / "in/b.png").unlink()
    path = tmp_path / "in"
    if kind == "coco":
        images = [{"id": 1, "file_name": "a.png", "width": 8, "height": 8}]
        path = path / "instances.json"
        path.write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    elif kind == "visual_genome":
        (path / "a.png").rename(path / "1.jpg")
        path = path / "region_descriptions.json"
        path.write_text(json.dumps([{"id": 1, "regions": []}]))
    elif kind == "webdataset":
        with tarfile.open(tmp_path / "a.tar", "w") as tar:
            tar.add(path / "a.png", "a.png")
        path = tmp_path / "a.tar"
    questions = [f"<image>\n{Q}", f"<image> <image> {Q}", f"Is <image> red? {Q}"]
    values = {"name": "x", "sample": {"model": "m"}, "pair": {"weights": {"correctness": 1}}}
    recipe = make_recipe({**values, "source": {"kind": kind, "path": path, "prompts": questions}})
    ((_, table),) = SourceStage(recipe.source, 0, 9).shards(Run(tmp_path / "run"))
    rows = table.to_pylist()
    assert sorted(row["error_type"] or row["prompt"][0]["content"] for row in rows) == [
        Q, "image_inside_text", "image_tags"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("record", "members", "right"),
    [
        ({"prompt": f"<image>\n{Q}"}, 1, 1),
        ({"prompt": Q, "image": "000.png"}, 1, 1),
        ({"prompt": Q}, 0, 0),
        ({"prompt": f"<image>\n{Q}"}, 0, "1 <image> tag"),
        ({"prompt": f"<image>\n<image>\n{Q}"}, 1, "2 <image> tag"),
        ({"prompt": Q, "images": ["/etc/passwd"]}, 0, "names images, and the tar has none of this key"),
        ({"prompt": Q, "video": "v.mp4"}, 1, "`video` is filled"),
    ],
)
def test_a_webdataset_sample_has_the_images_beside_its_json(
    record: dict[str, Any], members: int, right: int | str, tmp_path: Path
) -> None:
    pictures(tmp_path)
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for key, text in (("1", record), ("2", {"prompt": "good"})):
            data = json.dumps(text).encode()
            info = tarfile.TarInfo(f"{key}.json")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
            if members or key == "2":
                tar.add(tmp_path / "a.png", f"{key}.png")
    made, _ = prompts(tmp_path, {"kind": "webdataset", "path": tmp_path / "a.tar"})
    if isinstance(right, int):
        assert (made["status"], len(made["images"])) == ("ok", right)
    else:
        assert made["status"] == "failed" and re.search(right, made["error"])


# ------------------------------------------------------------------------------------------------------------- schemas


def _message(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def _turn(side: str, text: str) -> dict[str, str]:
    return {"from": side, "value": text}


GOOD, BAD = "A cat.", "A dog."
SCHEMAS: dict[str, Callable[[dict[str, Any], str], dict[str, Any]]] = {
    "trl": lambda keys, prompt: {
        **keys,
        "prompt": [_message("user", prompt)],
        "chosen": [_message("assistant", GOOD)],
        "rejected": [_message("assistant", BAD)],
    },
    "rlaif_v": lambda keys, prompt: {**keys, "question": prompt, "chosen": GOOD, "rejected": BAD},
    "mdpo": lambda keys, prompt: {"img_path": None, **keys, "prompt": prompt, "chosen": GOOD, "rejected": BAD},
    "llamafactory": lambda keys, prompt: {
        **keys,
        "conversations": [_turn("human", prompt)],
        "chosen": _turn("gpt", GOOD),
        "rejected": _turn("gpt", BAD),
    },
    "swift": lambda keys, prompt: {
        **keys,
        "messages": [_message("user", prompt), _message("assistant", GOOD)],
        "rejected_response": BAD,
    },
    "pds_dpo": lambda keys, prompt: {
        **keys,
        "conversations": [_turn("human", prompt), _turn("gpt", GOOD)],
        "rejected_conversations": [_turn("human", prompt), _turn("gpt", BAD)],
    },
}
#: Schemas in which an image without a tag is an error, as it is where they come from.
TAGGED = ("llamafactory", "pds_dpo")


def _written(schema: str, name: str) -> dict[str, Any]:
    keys, prompt, right = ROWS[name]
    if schema in TAGGED and isinstance(right, int) and "<image>" not in prompt:
        prompt = "<image>" * right + prompt
    return {"id": name, **SCHEMAS[schema](keys, prompt)}


def _opened(folder: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    pictures(folder)
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    read: list[dict[str, Any]] = formats.open(str(folder / "train.jsonl")).to_list()
    return read


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_schema_reads_the_images(schema: str, tmp_path: Path) -> None:
    good = [name for name, row in ROWS.items() if isinstance(row.right, int)]
    together = _opened(tmp_path, [_written(schema, name) for name in good])
    for name, row in zip(good, together, strict=True):
        paths = [Path(image["path"]).name for image in row["images"]]
        assert paths == ["a.png", "b.png"][: ROWS[name].right], name
        assert [part["type"] for part in row["prompt"][0]["content"]] == ["image"] * len(paths) + ["text"], name
        assert row["prompt"][0]["content"][-1]["text"] == Q, name
    for name in good:
        (alone,) = _opened(tmp_path, [_written(schema, name)])
        assert len(alone["images"]) == ROWS[name].right, name


@pytest.mark.parametrize("schema", SCHEMAS)
def test_every_schema_names_the_row_whose_images_are_not_clear(schema: str, tmp_path: Path) -> None:
    first = _written(schema, "one image")
    for name, row in ROWS.items():
        if isinstance(row.right, str):
            for rows in ([_written(schema, name)], [first, _written(schema, name)]):
                place = rf"row {len(rows) - 1} \(id {re.escape(name)}\): .*{row.right}"
                with pytest.raises(DataError, match=place):
                    _opened(tmp_path, rows)


def test_embedded_images_beside_the_path_they_came_from_are_not_copied(tmp_path: Path) -> None:
    pictures(tmp_path)
    encoded = {"bytes": (tmp_path / "a.png").read_bytes(), "path": "a.png"}
    rows = [{**SCHEMAS["rlaif_v"]({"image": encoded, "image_path": "elsewhere/1.jpg"}, Q)} for _ in range(5)]
    dataset = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image(decode=False))
    dataset.save_to_disk(str(tmp_path / "saved"))
    saved = datasets.load_from_disk(str(tmp_path / "saved"))
    read = formats.read(saved)
    assert [row["images"] for row in read] == [[encoded]] * 5
    there = saved.data.table.column("image").chunk(0).field("bytes").buffers()[2]
    here = read.data.table.column("images").chunk(0).flatten().field("bytes").buffers()[2]
    assert there.address <= here.address < there.address + there.size


def test_columns_of_different_kinds_are_put_together_row_by_row() -> None:
    red, blue = (io.BytesIO(), io.BytesIO())
    Image.new("RGB", (8, 8), "red").save(red, "PNG")
    Image.new("RGB", (8, 8), "blue").save(blue, "PNG")
    kinds: list[dict[str, Any]] = [
        {"images": [{"bytes": red.getvalue(), "path": None}], "image": None},
        {"images": [], "image": blue.getvalue()},
        {"images": None, "image": None},
    ]
    rows = [SCHEMAS["rlaif_v"](kind, Q) for kind in kinds * 700]
    read = formats.read(datasets.Dataset.from_list(rows))["images"][:]
    assert [[image["bytes"] for image in images] for images in read[-3:]] == [[red.getvalue()], [blue.getvalue()], []]
    assert read == read[:3] * 700
    rows[-2] = SCHEMAS["rlaif_v"]({"images": kinds[0]["images"], "image": blue.getvalue()}, Q)
    with pytest.raises(DataError, match="row 2098: column `images` and `image` name different images"):
        formats.read(datasets.Dataset.from_list(rows))
