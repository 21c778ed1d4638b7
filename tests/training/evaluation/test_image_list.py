"""``--ids``: published lists of images, in the layouts in which they are given out."""

import json

import pytest

from pipeline.base.errors import ConfigError
from training.errors import DataError
from training.evaluation import image_list
from training.evaluation.image_list import ImageList
from training.evaluation.suite import load

FILES = {file: file for file in ("COCO_val2014_000000000042.jpg", "COCO_val2014_000000000139.jpg", "x/AMBER_7.jpg")}
LAYOUTS = {
    "numbers.txt": "42\n7\n",
    "names.txt": "\ufeffCOCO_val2014_000000000042.jpg\r\n\r\nAMBER_7.jpg\r\n",
    "paths.txt": "/data/coco/val2014/COCO_val2014_000000000042.jpg\nC:\\x\\AMBER_7.jpg\n42\n",
    "2017.txt": "000000000042.jpg\nAMBER_7\n",
    "list.json": "[42, 7]",
    "texts.json": '["000000000042", "x/AMBER_7.jpg"]',
    "answers.jsonl": '{"image_id": 42, "caption": "A dog."}\n{"image_id": 7, "caption": "A cat."}\n',
    "gaps.jsonl": '{"question_id": 0, "image": "COCO_val2014_000000000042.jpg"}\n\n{"image": "AMBER_7.jpg"}',
    "objects.json": '[{"id": 1, "image": "COCO_val2014_000000000042.jpg"}, {"id": 2, "image": "AMBER_7.jpg"}]',
    "chair.json": '{"overall_metrics": {"CHAIRs": 1}, "sentences": [{"image_id": 42}, {"image_id": 7}]}',
    "coco.json": '{"info": {}, "images": [{"id": 42, "file_name": "COCO_val2014_000000000042.jpg"}, {"id": 7}]}',
    "ids.json": '{"image_id": [42, 7]}',
    "keys.json": '{"42": ["a dog"], "AMBER_7.jpg": []}',
}  # fmt: skip


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_list_is_read_in_every_layout(name, tmp_path):
    path = tmp_path / name
    path.write_text(LAYOUTS[name], encoding="utf-8", newline="")
    assert image_list.of(path).among(FILES, "any") == ["COCO_val2014_000000000042.jpg", "x/AMBER_7.jpg"]


def test_a_single_object_is_a_list_of_one(tmp_path):
    (tmp_path / "one.jsonl").write_text('{"image_id": 139}\n')
    assert image_list.of(tmp_path / "one.jsonl").entries == (139,)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "names no image; give --ids a file"),
        ("[]", "names no image; give --ids a file"),
        ("[1, null]", "item 2: None names no image"),
        ("[true]", "item 1: True names no image"),
        ('[{"caption": "A dog."}]', "item 1: {'caption': 'A dog.'} names no image"),
        ('{"image_id": 1}\nno json', "line 2: not valid JSON"),
    ],
)
def test_a_file_that_is_no_list_says_where(content, message, tmp_path):
    (tmp_path / "ids").write_text(content)
    with pytest.raises(DataError, match=message):
        image_list.of(tmp_path / "ids")


def test_a_file_that_is_not_there_and_a_value_that_is_none_are_named(tmp_path):
    with pytest.raises(DataError, match=r"there is no file .*; give --ids FILE"):
        image_list.of(tmp_path / "ids.txt")
    with pytest.raises(DataError, match="ids: 5 is neither a file nor a list"):
        image_list.of(5)


def test_ids_that_a_suite_does_not_have_are_counted_and_the_first_is_named():
    entries = ImageList((42, "COCO_val2014_000000000001.jpg", 3, 3), "FILE")
    with pytest.raises(
        DataError, match="any: 2 of 3 ids of FILE are none of its 3 images, the first is 'COCO_val2014_0"
    ):
        entries.among(FILES, "any")


def test_an_entry_that_is_two_images_is_an_error_and_a_whole_name_is_one():
    files = {file: file for file in ("count/0001.jpg", "color/0001.jpg")}
    for entry in (1, "0001", "0001.jpg"):
        with pytest.raises(DataError, match=r"is both count/0001.jpg and color/0001.jpg; give the whole name"):
            ImageList((entry,)).among(files, "mme")
    assert ImageList(("color/0001.jpg",)).among(files, "mme") == ["color/0001.jpg"]


def test_a_number_of_the_annotations_comes_before_one_in_a_files_name():
    assert ImageList((1, "4.jpg", 2)).among({1: "4.jpg", 4: "1.jpg", 9: "2.jpg"}, "chair") == [1, 9]


@pytest.fixture
def data(tmp_path):
    """POPE and COCO's annotations about five images, which lie there too."""
    names = [f"COCO_val2014_{number:012}.jpg" for number in (11, 12, 13, 14, 15)]
    for suite in ("pope", "chair"):
        (tmp_path / suite / "images").mkdir(parents=True)
        for name in names:
            (tmp_path / suite / "images" / name).touch()
    rows = "".join(json.dumps({"image": name, "text": "Is there a dog?", "label": "yes"}) + "\n" for name in names)
    for split in ("random", "popular", "adversarial"):
        (tmp_path / "pope" / f"coco_pope_{split}.json").write_text(rows)
    listed = [{"id": number, "file_name": name} for number, name in enumerate(names, 11)]
    coco = {"images": listed, "categories": [{"id": 1, "name": "dog"}], "annotations": []}
    (tmp_path / "chair" / "instances_val2014.json").write_text(json.dumps(coco))
    (tmp_path / "chair" / "captions_val2014.json").write_text(json.dumps({"images": listed, "annotations": []}))
    return tmp_path


OF_CHAIR = {"variant": "coco80"}


def asked(suites):
    return {suite.name: sorted({question.image[-6:-4] for question in suite.questions}) for suite in suites}


def test_every_suite_asks_about_the_listed_images_in_place_of_those_drawn(data):
    (data / "ids.txt").write_text("13\n11\n13\n")
    suites = load(["pope", "chair"], data, shared=OF_CHAIR, ids=data / "ids.txt")
    assert asked(suites) == {"pope": ["11", "13"], "chair": ["11", "13"]}
    assert suites[0].versions["images"] == suites[1].versions["images"] and "2 listed" in suites[0].versions["images"]
    (other,) = load(["pope"], data, ids=["COCO_val2014_000000000011.jpg", 13])
    assert other.versions == suites[0].versions  # the images count, not how they are written
    (more,) = load(["pope"], data, ids=[11, 12, 13])
    assert more.versions != other.versions and load(["pope"], data)[0].versions == {}


def test_one_suite_has_a_list_of_its_own_or_none(data):
    (data / "ids.json").write_text("[11]")
    lists = {"chair": {"ids": str(data / "ids.json")}, "pope": {"ids": None}}
    suites = load(["pope", "chair"], data, shared=OF_CHAIR, options=lists, ids=[12])
    assert asked(suites) == {"pope": ["11", "12", "13", "14", "15"], "chair": ["11"]}


def test_a_limit_draws_among_the_listed_images(data):
    (pope, chair) = load(["pope", "chair"], data, limit=2, shared=OF_CHAIR, ids=[11, 13, 15])
    for images in asked([pope, chair]).values():
        assert len(images) == 2 and set(images) < {"11", "13", "15"}
    with pytest.raises(ConfigError, match=r"chair\.limit and a list of ids: leave one out"):
        load(["chair"], data, shared=OF_CHAIR, options={"chair": {"limit": 2}}, ids=[11])


@pytest.mark.parametrize("suite", ["pope", "chair"])
def test_an_id_of_another_suite_is_refused(suite, data):
    with pytest.raises(DataError, match=f"suite {suite}: 1 of 2 ids of .* images, the first is 99; give --ids"):
        load([suite], data, shared=OF_CHAIR, ids=[11, 99])
