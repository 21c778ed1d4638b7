"""``vlm-preference init``: whatever a folder holds, the recipe that is written can be planned."""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import re
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.commands import init
from pipeline.commands.folder_sources import contents
from pipeline.recipe.load import load_recipe
from pipeline.sources.readers.protocol import entries
from training.config.recipe import WholeRecipe

runner = CliRunner()
Fill = Callable[[Path], None]


def picture(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 8), "red").save(path)
    return path


def images(folder: Path) -> None:
    picture(folder / "photos" / "a b.png")
    picture(folder / "photos" / "more" / "c.jpg")


def coco(folder: Path, category: str = "dog") -> None:
    picture(folder / "train2017" / "1.png")
    size = {"width": 8, "height": 8}
    content = {
        "info": {},
        "images": [{"id": 1, "file_name": "1.png", **size}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 7, "bbox": [0, 0, 4, 4]}],
        "categories": [{"id": 7, "name": category}],
    }
    write(folder / "annotations" / "instances_train.json", content)
    spoken = [{"id": 1, "image_id": 1, "caption": "A dog."}]
    write(folder / "annotations" / "captions_train.json", {"images": content["images"], "annotations": spoken})


def damage(folder: Path) -> None:
    coco(folder, "Traffic_Cone")


def regions(folder: Path) -> None:
    picture(folder / "images" / "1.png")
    region = {"region_id": 1, "image_id": 1, "phrase": "a dog", "x": 0, "y": 0, "width": 4, "height": 4}
    write(folder / "region_descriptions.json", [{"id": 1, "regions": [region]}])
    write(folder / "image_data.json", [{"image_id": 1, "url": "https://host/images/1.png", "width": 8, "height": 8}])


def llava(folder: Path) -> None:
    picture(folder / "coco" / "train" / "1.png")
    turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A dog."}]
    write(folder / "chat.json", [{"id": "1", "image": "train/1.png", "conversations": turns}])


def pairs(folder: Path) -> None:
    picture(folder / "images" / "1.png")
    turns = [
        [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": text}] for text in ("Dog.", "Cat.")
    ]
    row = {"id": "1", "image": "1.png", "conversations": turns[0], "rejected_conversations": turns[1]}
    write(folder / "pairs.json", [row])


def rows(folder: Path) -> None:
    picture(folder / "data" / "1.png")
    facts = {"objects": [{"name": "dog", "count": 1}]}
    row = {"images": ["1.png"], "prompt": "What is it?", "facts": facts, "answer": "a dog"}
    (folder / "data" / "prompts.jsonl").write_text(json.dumps(row) + "\n")


def cells(folder: Path) -> None:
    picture(folder / "1.png")
    with (folder / "rows.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["image", "prompt", "answer"], ["1.png", "Is it red?", "yes"]])


def columns(folder: Path) -> None:
    data = picture(folder / "1.png").read_bytes()
    (folder / "1.png").unlink()
    pq.write_table(pa.table({"image": [{"bytes": data, "path": None}]}), folder / "rows.parquet")


def tars(folder: Path) -> None:
    data = picture(folder / "1.png").read_bytes()
    (folder / "1.png").unlink()
    (folder / "shards [1]").mkdir()
    with tarfile.open(folder / "shards [1]" / "a.tar", "w") as archive:
        for name, content in (("1.png", data), ("1.txt", b"a caption")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


#: What a folder holds, the kind of the source, and the scorers that its recipe has.
FOLDERS = [
    (images, "folder", ["claims"]),
    (coco, "coco", ["objects"]),
    (damage, "coco", ["objects"]),
    (regions, "visual_genome", ["facts"]),
    (llava, "llava", ["claims"]),
    (pairs, "pds", ["given"]),
    (rows, "jsonl", ["objects", "correctness"]),
    (cells, "csv", ["correctness"]),
    (columns, "parquet", ["claims"]),
    (tars, "webdataset", ["claims"]),
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "My data").mkdir()
    return tmp_path / "My data"


def invoke(*arguments: str, said: str | None = None) -> Any:
    """With a model that is there, unless questions are answered."""
    model = [] if said or "--model" in arguments else ["--model", "scenes-vlm"]
    return runner.invoke(app, ["init", "My data", *model, *arguments], input=said)


def whole(path: str = "recipe.yaml") -> WholeRecipe:
    return load_recipe(path, group=WholeRecipe)


@pytest.mark.parametrize(("fill", "kind", "scorers"), FOLDERS, ids=[fill.__name__ for fill, *_ in FOLDERS])
def test_the_recipe_of_a_folder_can_be_planned(here: Path, fill: Fill, kind: str, scorers: list[str]) -> None:
    fill(here)
    result = invoke()
    assert result.exit_code == 0, result.output
    recipe = whole()
    assert recipe.source.kind == kind and list(recipe.score.scorers) == scorers and recipe.name == "My-data"
    plan = runner.invoke(app, ["plan", "recipe.yaml"])
    assert plan.exit_code == 0 and "never ran" in plan.output, plan.output
    prompts = list(entries(recipe.source))
    assert prompts and not any(prompt.error for prompt in prompts)
    for image in (image for prompt in prompts for image in prompt.images if image["path"] and not image["bytes"]):
        root = prompts[0].root
        assert root is None or kind == "webdataset" or (Path(root.place) / image["path"]).is_file()


@pytest.mark.parametrize(("fill", "kind", "scorers"), FOLDERS[:6], ids=[fill.__name__ for fill, *_ in FOLDERS[:6]])
def test_the_groups_at_its_end_can_be_taken_as_they_stand(
    here: Path, fill: Fill, kind: str, scorers: list[str]
) -> None:
    fill(here)
    invoke()
    lines = [line for line in Path("recipe.yaml").read_text().splitlines() if "THIS_FILE" not in line]
    text, count = re.subn(r"(?m)^# (?=(?:train|evaluate|publish):|  )", "", "\n".join(lines))
    Path("full.yaml").write_text(text)
    recipe = whole("full.yaml")
    assert count > 10 and recipe.train and recipe.evaluate and recipe.publish.license == "cc-by-4.0"


def test_objects_that_no_vocabulary_knows_get_a_file_of_words(here: Path) -> None:
    damage(here)
    invoke("--out", "cones.yaml")
    assert set(json.loads(Path("cones.words.json").read_text())) == {"traffic_cone", "traffic_cones"}
    assert whole("cones.yaml").score.objects.vocabulary == "cones.words.json"
    from pipeline.scoring.vocabularies import vocabulary

    assert vocabulary("cones.words.json").canonical("Traffic_Cone")


def test_what_cannot_be_seen_is_asked(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "_at_terminal", lambda: True)
    images(here)
    coco(here)
    result = invoke(said="3\n2\nWhat is broken?\nbolt, nut\nscenes-vlm\n")
    assert result.exit_code == 0, result.output
    recipe = whole()
    assert recipe.source.kind == "folder" and recipe.source.prompts == ("What is broken?",)
    assert recipe.sample.model == "scenes-vlm" and recipe.score.claims is not None
    assert set(json.loads(Path("recipe.words.json").read_text())) == {"bolt", "bolts", "nut", "nuts"}


def test_nothing_is_written_over_unasked(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images(here)
    Path("recipe.yaml").write_text("mine")
    result = invoke("--yes")
    assert result.exit_code == 2 and "recipe.yaml is there already" in result.output
    monkeypatch.setattr(init, "_at_terminal", lambda: True)
    assert invoke(said="n\n").exit_code == 2 and Path("recipe.yaml").read_text() == "mine"
    assert invoke(said="y\n\n\nscenes-vlm\n").exit_code == 0 and whole().source.kind == "folder"


def test_a_folder_that_nothing_can_be_read_from_says_why(here: Path) -> None:
    (here / "notes.txt").write_text("x")
    assert "no file ends with .png" in invoke().output
    turns = [{"from": "human", "value": "What?"}]
    write(here / "chat.json", [{"image": "lost.png", "conversations": turns}])
    result = invoke()
    assert result.exit_code == 2 and "its images, such as lost.png, are in no folder below" in result.output
    (here / "rows.jsonl").write_text('{"images": [], "prmpt": "x"}\n')
    assert "no folder nowhere" in runner.invoke(app, ["init", "nowhere"]).output
    assert not Path("recipe.yaml").exists()


def test_what_is_in_the_folder_and_is_not_read_is_told(here: Path) -> None:
    images(here)
    (here / "photos" / "a b.txt").write_text("A red square.")
    (here / "photos" / "broken.jpg").write_text("no picture")
    write(here / "questions.json", {"questions": [{"image_id": 1, "question": "What?"}]})
    output = invoke().output
    assert (
        "1 of the first 3 images cannot be read, and fail their prompts: " in output and "broken.jpg: in none" in output
    )
    assert "1 texts beside images, such as My data/photos/a b.txt, are not read" in output
    assert "questions.json is not read" in output and "docs/sources.md" in output


def test_a_folder_that_may_not_be_read_is_left_out_with_a_note(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as a disk's lost+found, which is the system's."""
    coco(here)
    (here / "lost+found").mkdir()
    scan = os.scandir

    def refuse(place: Any) -> Any:
        if os.fspath(place).endswith("lost+found"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(place))
        return scan(place)

    monkeypatch.setattr(os, "scandir", refuse)
    found = contents(here)
    assert found.sources[0].kind == "coco"
    assert f"{here / 'lost+found'} is left out: Permission denied" in found.notes


def test_rows_without_a_prompt_are_told_and_their_images_are_found(here: Path) -> None:
    picture(here / "img" / "1.png")
    row = {"images": ["img/1.png"], "messages": [{"role": "user", "content": "What?"}]}
    (here / "rows.jsonl").write_text(json.dumps(row) + "\n")
    output = invoke().output
    assert "lacks `prompt`" in output and "every image is asked the same" in output and "cannot be read" not in output


@pytest.mark.parametrize(("fill", "kind", "scorers"), FOLDERS, ids=[fill.__name__ for fill, *_ in FOLDERS])
def test_no_image_of_a_folder_that_is_whole_is_called_broken(
    here: Path, fill: Fill, kind: str, scorers: list[str]
) -> None:
    fill(here)
    assert "cannot be read" not in invoke().output


def test_a_model_that_is_not_there_is_told_before_anything_is_written(here: Path) -> None:
    images(here)
    result = invoke("--model", "./models/vlm")
    assert result.exit_code == 2 and "no model folder './models/vlm'" in result.output
    assert not Path("recipe.yaml").exists()


def test_a_model_of_the_hub_may_be_fetched_elsewhere(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    images(here)
    result = invoke("--model", "owner/nowhere-to-be-found")
    assert result.exit_code == 0 and "note: model 'owner/nowhere-to-be-found' is in no cache" in result.output
    assert whole().sample.model == "owner/nowhere-to-be-found"


def test_a_saved_dataset_is_one_source_and_its_files_none(here: Path) -> None:
    from datasets import Dataset, Features, Value
    from datasets import Image as ImageFeature

    path = str(picture(here / "1.png"))
    features = Features({"image": ImageFeature(), "question": Value("string")})
    Dataset.from_dict({"image": [path], "question": ["Why?"]}, features=features).save_to_disk(here / "saved")
    sources = contents(here).sources
    assert [source.kind for source in sources] == ["huggingface", "folder"]
    assert sources[0].options["columns"] == {"images": "image", "prompt": "question"}
    assert invoke().exit_code == 0 and whole().source.kind == "huggingface"


def test_annotations_may_lie_apart_from_their_images(here: Path, tmp_path: Path) -> None:
    coco(here)
    (here / "train2017").rename(tmp_path / "elsewhere")
    assert "name it with --images" in invoke().output
    assert invoke("--images", "elsewhere").exit_code == 0
    source = whole().source
    assert source.kind == "coco" and source.root == "elsewhere"
    assert "no folder nowhere" in invoke("--images", "nowhere", "--out", "b.yaml").output


@pytest.mark.parametrize("fill", [cells, pairs])
@pytest.mark.parametrize("objects", ["dog, cat", "coco"])
def test_words_for_objects_are_not_needed_where_right_answers_are_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fill: Fill, objects: str
) -> None:
    fill(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    done = runner.invoke(app, ["init", "data", "--yes", "--model", "scenes-vlm", "--objects", objects])
    assert done.exit_code == 0, done.output
    assert "note: --objects is not needed: the answers of" in done.output
    assert load_recipe("recipe.yaml", (), WholeRecipe) and not Path("recipe.words.json").exists()


def test_answers_to_questions_of_another_column_are_not_those_of_a_description(here: Path) -> None:
    """A description was right where it said "yes": VQA's `question` and `answer` are many a file's columns."""
    picture(here / "1.png")
    row = {"image": "1.png", "question": "Is it red?", "answer": "yes"}
    (here / "vqa.jsonl").write_text(json.dumps(row) + "\n")
    output = invoke().output
    assert "vqa.jsonl: its answers are to questions that it does not call `prompt`" in output
    assert "call the column `prompt`" in output
    assert whole().source.kind == "folder" and whole().score.scorers == ("claims",)

    (here / "vqa.jsonl").write_text(json.dumps({**row, "prompt": row["question"]}) + "\n")
    assert invoke("--out", "b.yaml").exit_code == 0
    assert load_recipe("b.yaml", (), WholeRecipe).score.scorers == ("correctness",)


def test_so_are_those_of_a_saved_dataset_and_of_tars(here: Path) -> None:
    from datasets import Dataset

    data = picture(here / "1.png").read_bytes()
    rows = {"image": [{"bytes": data, "path": None}], "query": ["Is it red?"], "answer": ["yes"]}
    Dataset.from_dict(rows).save_to_disk(here / "saved")
    with tarfile.open(here / "a.tar", "w") as archive:
        for name, content in (("1.png", data), ("1.json", b'{"question": "Is it red?", "answer": "yes"}')):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    found = contents(here)
    assert [source.kind for source in found.sources] == ["folder"]
    assert len([note for note in found.notes if "its answers are to questions" in note]) == 2
    assert any("columns.prompt names it" in note for note in found.notes)
