"""The export to PDS-DPO's format, and the way back: texts and images stay as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_kit import file
from PIL import Image
from stage_kit import png
from typer.testing import CliRunner

from pipeline import pds
from pipeline.base.errors import InputError
from pipeline.base.images import image_files
from pipeline.base.images.tags import in_front
from pipeline.pds import export
from pipeline.sources.config import PdsSource
from pipeline.sources.readers import pds as reader

JPEG = file(Image.new("RGB", (4, 4)), "JPEG")


def said(role: str, text: str) -> dict[str, str]:
    return {"role": role, "content": text}


def pair(one: str = "p", **changes: Any) -> dict[str, Any]:
    return {
        "id": one,
        "images": [{"bytes": png(), "path": "a.png"}],
        "prompt": [said("user", "What is it?")],
        "chosen": [said("assistant", "A dog.")],
        "rejected": [said("assistant", "A cat.")],
        "margin": 1.0,
        **changes,
    }


def published(folder: Path, *rows: dict[str, Any]) -> Path:
    """A dataset as ``pipeline.publishing.publish`` leaves it."""
    import datasets

    text = datasets.Value("string")
    messages = [{"role": text, "content": text}]
    features = datasets.Features(
        {"id": text, "images": datasets.List(datasets.Image(decode=False)), "prompt": messages, "chosen": messages,
         "rejected": messages, "margin": datasets.Value("float64")}
    )  # fmt: skip
    pairs = datasets.Dataset.from_list(list(rows), features=features)
    datasets.DatasetDict({"pairs": pairs, "candidates": pairs.select_columns(["id"])}).save_to_disk(str(folder))
    return folder


def back(out: Path) -> list[dict[str, Any]]:
    """What the source and the stage of given answers read of an exported file."""
    spec = PdsSource(kind="pds", path=str(out))
    rows = []
    for entry, (_, chosen, rejected) in zip(reader.read(spec), reader.answers(spec), strict=True):
        pictures = [image_files.load({**image, "path": str(out.parent / image["path"])}) for image in entry.images]
        prompt = list(in_front(entry.prompt, len(pictures)))
        rows.append({"images": pictures, "prompt": prompt, "chosen": chosen, "rejected": rejected})
    return rows


def plain(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "images": [image["bytes"] for image in row["images"]],
        "prompt": row["prompt"],
        "chosen": row["chosen"][0]["content"],
        "rejected": row["rejected"][0]["content"],
    }


def test_an_item_has_the_four_keys_of_the_format(tmp_path: Path) -> None:
    done = export(published(tmp_path / "dataset", pair()), tmp_path / "out" / "pairs.json")
    assert (done.pairs, done.images) == (1, 1)
    (item,) = json.loads((tmp_path / "out/pairs.json").read_text())
    asked = {"from": "human", "value": "<image>\nWhat is it?"}
    assert item == {
        "id": "p",
        "image": item["image"],
        "conversations": [asked, {"from": "gpt", "value": "A dog."}],
        "rejected_conversations": [asked, {"from": "gpt", "value": "A cat."}],
    }
    assert item["image"].startswith("images/") and item["image"].endswith(".png")
    assert (tmp_path / "out" / item["image"]).read_bytes() == png()


def test_images_are_kept_byte_by_byte_and_once(tmp_path: Path) -> None:
    (tmp_path / "b.jpg").write_bytes(JPEG)
    rows = [
        pair("p"),
        pair("p", images=[{"bytes": png(), "path": None}, {"bytes": None, "path": str(tmp_path / "b.jpg")}]),
        pair("q", images=[]),
    ]
    out = tmp_path / "pairs.json"
    assert export(published(tmp_path / "dataset", *rows) / "pairs", out) == pds.Exported(3, 2)
    items = json.loads(out.read_text())
    assert [item["id"] for item in items] == ["p", "p-2", "q"]  # a prompt may have several pairs
    assert [len(row["images"]) for row in back(out)] == [1, 2, 0] and "image" not in items[2]
    assert back(out)[1]["images"] == [png(), JPEG] and sorted(p.suffix for p in (tmp_path / "images").iterdir()) == [
        ".jpg", ".png"
    ]  # fmt: skip


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=20).filter(lambda text: "<image>" not in text)
turns = st.lists(st.tuples(words, words), max_size=2)
rows = st.builds(
    lambda count, system, before, asked, chosen, rejected: pair(
        images=[{"bytes": png(i), "path": None} for i in range(count)],
        prompt=[
            *([said("system", system)] if system else []),
            *(said(role, text) for two in before for role, text in zip(("user", "assistant"), two, strict=True)),
            said("user", asked),
        ],
        chosen=[said("assistant", chosen)],
        rejected=[said("assistant", rejected)],
    ),
    st.integers(0, 2), words, turns, words, words, words,
)  # fmt: skip


@settings(max_examples=30)
@given(st.lists(rows, min_size=1, max_size=3))
def test_what_is_exported_comes_back_as_it_was(tmp_path_factory: Any, many: list[dict[str, Any]]) -> None:
    folder = tmp_path_factory.mktemp("round")
    export(published(folder / "dataset", *many), folder / "pairs.json")
    assert back(folder / "pairs.json") == [plain(row) for row in many]


def test_training_reads_the_export_as_it_reads_the_published_dataset(tmp_path: Path) -> None:
    from training import formats

    both = [pair("p"), pair("q", images=[{"bytes": png(i), "path": None} for i in range(2)]), pair("r", images=[])]
    dataset = published(tmp_path / "dataset", *both)
    export(dataset, tmp_path / "pairs.json")
    direct, again = (formats.open(str(path)) for path in (dataset / "pairs", tmp_path / "pairs.json"))
    for name in ("id", "prompt", "chosen", "rejected"):
        assert again[name][:] == direct[name][:]
    assert [len(of) for of in again["images"][:]] == [1, 2, 0]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"prompt": [said("user", "What is <image>?")]}, "id 'p': <image> in a text"),
        ({"rejected": [said("assistant", "An <image>.")]}, "id 'p': <image> in a text"),
        ({"prompt": [said("tool", "x")]}, "id 'p': a message of role 'tool'"),
        ({"chosen": [said("assistant", "a"), said("user", "b")]}, "chosen is not one message of the assistant"),
    ],
)
def test_what_the_format_cannot_say_is_an_error_that_leaves_no_file(
    changes: dict[str, Any], says: str, tmp_path: Path
) -> None:
    dataset = published(tmp_path / "dataset", pair("o"), pair("p", **changes))
    with pytest.raises(InputError, match=says):
        export(dataset, tmp_path / "pairs.json")
    assert not (tmp_path / "pairs.json").exists()


def test_the_command_says_what_it_wrote_and_what_it_cannot_read(tmp_path: Path) -> None:
    out = str(tmp_path / "pairs.json")
    done = CliRunner().invoke(pds.app, [str(published(tmp_path / "dataset", pair())), out])
    assert done.exit_code == 0 and f"1 pairs in {out}, 1 images in" in done.output
    wrong = CliRunner().invoke(pds.app, [str(tmp_path / "nothing"), out])
    assert wrong.exit_code == 2 and "cannot open the dataset" in wrong.output
