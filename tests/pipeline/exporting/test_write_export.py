"""The folder of an export: whole or not there, never somebody else's; what does not fit is said or counted."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import help_kit
import pytest
from datasets import load_dataset
from export_kit import message, pair, publish_rows
from picture_kit import file
from PIL import Image
from stage_kit import png
from typer.testing import CliRunner

import pipeline.export
from pipeline.base import files
from pipeline.base.errors import ConfigError, InputError, StoreError
from pipeline.exporting import formats, published_pairs
from pipeline.exporting.formats import FORMATS
from pipeline.exporting.published_pairs import PublishedPair
from pipeline.exporting.write_export import Exported, export

LLAMA_FACTORY = FORMATS["llama_factory"]
JPEG = file(Image.new("RGB", (4, 4)), "JPEG")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_an_image_is_written_once_byte_by_byte(tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_bytes(JPEG)
    beside = {"bytes": None, "path": str(tmp_path / "b.jpg")}
    rows = [pair("p"), pair("p", images=[{"bytes": png(), "path": None}, beside]), pair("q", images=[beside])]
    done = export(LLAMA_FACTORY, publish_rows(tmp_path / "dataset", rows), tmp_path / "out")
    assert done == Exported(3, 2, {})
    images = tree(tmp_path / "out/images")
    assert sorted(images.values()) == sorted([png(), JPEG])
    assert sorted(Path(name).suffix for name in images) == [".jpg", ".png"]
    items = json.loads((tmp_path / "out/out.json").read_text())
    assert [len(item["images"]) for item in items] == [1, 2, 1] and items[1]["images"][0] == items[0]["images"][0]


def test_the_same_rows_give_the_same_bytes_and_take_the_place_of_an_earlier_export(tmp_path: Path) -> None:
    dataset = publish_rows(tmp_path / "dataset", [pair("p"), pair("q")])
    for name, export_format in FORMATS.items():
        out = tmp_path / name / "out"
        export(export_format, publish_rows(tmp_path / f"{name}-other", [pair("other", images=[])] * 2 + [pair()]),
               out, skip_unfit=True)  # fmt: skip
        export(export_format, dataset, out)
        export(export_format, dataset, tmp_path / name / "again/out")
        assert tree(out) == tree(tmp_path / name / "again/out")
        assert {path.name for path in out.parent.iterdir()} == {"out", "again"}


def test_no_folder_is_called_so_that_a_list_of_datasets_takes_the_place_of_the_pairs(tmp_path: Path) -> None:
    out = tmp_path / "dataset_info"
    export(LLAMA_FACTORY, publish_rows(tmp_path / "dataset", [pair("p"), pair("q")]), out)
    (entry,) = json.loads((out / "dataset_info.json").read_text()).values()
    assert [item["id"] for item in json.loads((out / entry["file_name"]).read_text())] == ["p", "q"]


@pytest.mark.parametrize("folder", ["dataset", "dataset/pairs", "."])
def test_a_dataset_is_found_from_its_run_itself_or_its_table(folder: str, tmp_path: Path) -> None:
    publish_rows(tmp_path / "run/dataset", [pair()])
    assert export(LLAMA_FACTORY, tmp_path / "run" / folder, tmp_path / "out").pairs == 1


UNFIT: list[tuple[str, dict[str, Any], str]] = [
    ("pds", {"prompt": [message("user", "What is <image>?")]}, "<image> in a text, which would stand for an image"),
    ("trl", {"rejected": [message("assistant", "An <image>.")]}, "<image> in a text"),
    (
        "trl",
        {"chosen": [message("assistant", "A <video>.")]},
        "<video> in a text, which would stand for something else",
    ),
    ("pds", {"prompt": [message("tool", "x"), message("user", "y")]}, "a message of role 'tool'"),
    (
        "trl",
        {"chosen": [message("assistant", "a"), message("user", "b")]},
        "chosen is not one message of the assistant",
    ),
    ("rlaif_v", {"rejected": None}, "rejected is not one message of the assistant"),
    ("trl", {"prompt": [message("user", None)]}, "a content that is no text"),
    ("pds", {"prompt": [message("system", "x")]}, "images, and no message of the user"),
    ("rlaif_v", {"images": []}, "no image"),
    ("rlaif_v", {"images": [{"bytes": png(), "path": None}] * 2}, "several images"),
    ("rlaif_v", {"prompt": [message("system", ""), message("user", "y")]}, "a system message"),
    ("rlaif_v", {"prompt": [message(r, "y") for r in ("user", "assistant", "user")]}, "several turns"),
    ("ms_swift", {"rejected": [message("assistant", "")]}, "a rejected answer that is empty or the chosen one"),
    ("ms_swift", {"rejected": [message("assistant", "A dog.")]}, "a rejected answer that is empty or the chosen one"),
    *(
        (name, {"prompt": [message(role, "x") for role in roles]}, "turns that do not alternate")
        for name in ("llama_factory", "ms_swift")
        for roles in (["user", "user"], ["user", "assistant"], ["assistant", "user"], ["user", "system", "user"])
    ),
]


@pytest.mark.parametrize(("name", "changes", "reason"), UNFIT)
def test_what_a_format_cannot_say_is_an_error_or_counted(
    name: str, changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    dataset = publish_rows(tmp_path / "dataset", [pair("o"), pair("p", **changes), pair("q")])
    with pytest.raises(InputError, match=f"id 'p': {reason}.*\n.*--skip-unfit"):
        export(FORMATS[name], dataset, tmp_path / "out")
    assert {path.name for path in tmp_path.iterdir()} == {"dataset"}
    done = export(FORMATS[name], dataset, tmp_path / "out", skip_unfit=True)
    assert done.pairs == 2 and [(reason in key, count) for key, count in done.left_out.items()] == [(True, 1)]
    assert f"Left out: 1 rows ({reason}" in (tmp_path / "out/README.md").read_text()


def test_an_export_of_nothing_is_an_error_with_the_reasons(tmp_path: Path) -> None:
    dataset = publish_rows(tmp_path / "dataset", [pair("p", images=[]), pair("q", images=[])])
    with pytest.raises(InputError, match=r"not one row of .* RLAIF-V's format \(no image.*: 2\)"):
        export(FORMATS["rlaif_v"], dataset, tmp_path / "out", skip_unfit=True)
    assert {path.name for path in tmp_path.iterdir()} == {"dataset"}


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        ({"bytes": None, "path": "/nowhere/a.png"}, "the image /nowhere/a.png cannot be read .No such file"),
        ({"bytes": b"no image", "path": None}, "the image in the row cannot be read"),
        ({"bytes": None, "path": None}, "the image in the row cannot be read .neither bytes nor a path"),
    ],
)
@pytest.mark.parametrize("name", ["pds", "trl"])
def test_an_image_that_is_gone_is_never_just_counted(
    name: str, image: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    dataset = publish_rows(tmp_path / "dataset", [pair("o"), pair("p", images=[image])])
    with pytest.raises(InputError, match=f"id 'p': {reason}"):
        export(FORMATS[name], dataset, tmp_path / "out", skip_unfit=True)
    assert not (tmp_path / "out").exists()


# -------------------------------------------------------------------------------------------------------- the folder


def test_an_export_that_fails_leaves_the_earlier_one(tmp_path: Path) -> None:
    dataset = publish_rows(tmp_path / "dataset", [pair("p")])
    export(LLAMA_FACTORY, dataset, tmp_path / "place/out")
    before = tree(tmp_path / "place")

    def full(folder: Path, name: str, pairs: Iterator[PublishedPair]) -> int:
        (folder / "half").write_text(next(pairs).id)
        raise OSError(28, "No space left on device")

    with pytest.raises(StoreError, match="no space left"):
        export(replace(LLAMA_FACTORY, write=full), dataset, tmp_path / "place/out")
    assert tree(tmp_path / "place") == before

    def stopped(folder: Path, name: str, pairs: Iterator[PublishedPair]) -> int:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(replace(LLAMA_FACTORY, write=stopped), dataset, tmp_path / "place/out")
    assert tree(tmp_path / "place") == before


def test_an_export_that_cannot_take_its_place_gives_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = publish_rows(tmp_path / "dataset", [pair("p")])
    export(LLAMA_FACTORY, dataset, tmp_path / "place/out")
    before, move = tree(tmp_path / "place"), files.move

    def refused(old: Path, new: Path) -> None:
        if "old" not in f"{old.name}{new.name}":
            raise OSError(5, "Input/output error")
        move(old, new)

    monkeypatch.setattr(files, "move", refused)
    with pytest.raises(StoreError, match="Input/output error"):
        export(LLAMA_FACTORY, publish_rows(tmp_path / "other", [pair("q")]), tmp_path / "place/out")
    assert tree(tmp_path / "place") == before


def test_what_a_killed_export_has_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    dead = subprocess.Popen(["true"])
    dead.wait()
    place = tmp_path / "place"
    left = [f".out.export.{dead.pid}.partial", f".out.export.old.{dead.pid}.partial",
            f"..out.export.{dead.pid}.partial.{dead.pid}.tmp"]  # fmt: skip
    others = [f".out.export.{os.getppid()}.partial", f"out.{dead.pid}.tmp", "out.old", f"other.{dead.pid}.partial"]
    for name in (*left, *others):
        (place / name / "images").mkdir(parents=True)
    export(LLAMA_FACTORY, publish_rows(tmp_path / "dataset", [pair()]), place / "out")
    assert {path.name for path in place.iterdir()} == {"out", *others}


@pytest.mark.parametrize("content", ["dataset_info.json", "README.md"])
def test_a_folder_with_files_of_others_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / content).write_text("{}")
    with pytest.raises(InputError, match=r"out holds files that are no export\n.*new folder"):
        export(LLAMA_FACTORY, publish_rows(tmp_path / "dataset", [pair()]), tmp_path / "out")
    assert tree(tmp_path / "out") == {content: b"{}"}


def test_a_published_dataset_is_not_overwritten_by_its_own_export(tmp_path: Path) -> None:
    dataset = publish_rows(tmp_path / "dataset", [pair()])
    with pytest.raises(InputError, match="holds files that are no export"):
        export(LLAMA_FACTORY, dataset, dataset)


def test_a_file_name_where_a_folder_belongs_is_refused(tmp_path: Path) -> None:
    dataset = publish_rows(tmp_path / "dataset", [pair()])
    with pytest.raises(InputError, match=r"pairs\.json names a file.*\n.*give .*/pairs$"):
        export(FORMATS["pds"], dataset, tmp_path / "pairs.json")
    (tmp_path / "taken").write_text("")
    with pytest.raises(InputError, match="taken is a file"):
        export(FORMATS["pds"], dataset, tmp_path / "taken")


def test_an_empty_folder_is_taken_and_gives_the_dataset_its_name(tmp_path: Path) -> None:
    out = tmp_path / "my photos, 2"
    out.mkdir()
    export(LLAMA_FACTORY, publish_rows(tmp_path / "dataset", [pair()]), out)
    assert list(json.loads((out / "dataset_info.json").read_text())) == ["my_photos_2"]
    assert (out / "my_photos_2.json").is_file()


# ----------------------------------------------------------------------------------------------------- what is opened


@pytest.mark.parametrize("damage", ["missing", "column", "type", "cut"])
def test_what_is_no_published_dataset_is_refused_by_name(damage: str, tmp_path: Path) -> None:
    import datasets

    dataset = tmp_path / "dataset"
    says = {
        "missing": "cannot open",
        "column": "no column chosen, rejected",
        "type": "no column images",
        "cut": "cut off",
    }
    if damage == "column":
        datasets.Dataset.from_list([{key: pair()[key] for key in ("id", "images", "prompt")}]).save_to_disk(
            str(dataset)
        )
    elif damage == "type":
        datasets.Dataset.from_list([{**pair(), "images": ["a.png"]}]).save_to_disk(str(dataset))
    elif damage == "cut":
        publish_rows(dataset, [pair()])
        (arrow,) = (dataset / "pairs").glob("*.arrow")
        arrow.write_bytes(arrow.read_bytes()[:-20])
    with pytest.raises(InputError, match=f"(?s){says[damage]}.*give the folder `dataset` of a run"):
        export(LLAMA_FACTORY, dataset, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("folder", ["dataset", "dataset/pairs", "."])
def test_the_licence_goes_along(folder: str, tmp_path: Path) -> None:
    dataset = publish_rows(tmp_path / "run/dataset", [pair()])
    (tmp_path / "LICENSE").write_text("of another project")
    export(FORMATS["trl"], tmp_path / "run" / folder, tmp_path / "without")
    (dataset / "LICENSE").write_text("cc0-1.0")
    export(FORMATS["trl"], tmp_path / "run" / folder, tmp_path / "out")
    assert (tmp_path / "out/LICENSE").read_text() == "cc0-1.0" and not (tmp_path / "without/LICENSE").exists()
    assert len(load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))) == 1


def test_ids_stay_their_own_whatever_they_are_called(tmp_path: Path) -> None:
    rows = [pair(name) for name in ("p", "p", "p-2", "p", "p-2")]
    pairs = published_pairs.open_published(publish_rows(tmp_path / "dataset", rows))
    assert [row.id for row in published_pairs.read(pairs)] == ["p", "p-2", "p-2-2", "p-3", "p-2-3"]


# -------------------------------------------------------------------------------------------------------- the command


def test_the_command_says_what_it_wrote_and_what_comes_next(tmp_path: Path) -> None:
    dataset = publish_rows(tmp_path / "dataset", [pair(), pair("q", images=[])])
    for name, export_format in FORMATS.items():
        out = tmp_path / name
        done = CliRunner().invoke(pipeline.export.app, [name, str(dataset), str(out), "--skip-unfit"])
        assert done.exit_code == 0, done.output
        written = "1 pairs and 1 images" if name == "rlaif_v" else "2 pairs and 1 images"
        assert f"{written} in {out}" in done.output and ("left out: 1 (no image" in done.output) == (name == "rlaif_v")
        assert f"next: {export_format.use(str(out), name)}" in done.output
        assert export_format.use("OUT", name) in (out / "README.md").read_text()


def test_a_format_that_is_misspelt_is_named(tmp_path: Path) -> None:
    dataset = str(publish_rows(tmp_path / "dataset", [pair()]))
    wrong = CliRunner().invoke(pipeline.export.app, ["llama_factry", dataset, str(tmp_path / "out")])
    assert wrong.exit_code == 2 and "did you mean llama_factory?" in wrong.output
    with pytest.raises(ConfigError, match="give one of llama_factory, ms_swift, trl, rlaif_v, pds"):
        formats.find("csv")
    assert formats.find("MS-Swift") is FORMATS["ms_swift"]


def test_help_names_every_format_and_is_quick() -> None:
    text, seconds = help_kit.told("pipeline.export")
    assert all(name in text for name in FORMATS) and seconds < 1
