"""``--data`` and ``--images`` as other people have them: clones, archives, and one folder for each suite."""

import base64
import io
import json
import shutil

import pytest
from PIL import Image

from training.errors import DataError
from training.evaluation import benchmarks, places
from training.evaluation.benchmarks import mme
from training.evaluation.places import Files
from training.evaluation.suite import load as load_all
from training.evaluation.words import coco_words

IMAGES = [f"COCO_val2014_{number:012}.jpg" for number in (42, 139)]
WORDS = {"nouns": "every_word", "similarity": "exact", "phrases": "every_word"}


def load(names, data, images=None, **options):
    """Two images of each suite: CHAIR asks about 500 by itself."""
    return load_all(names, data, images, limit=2, **options)


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")


def jpeg(colour="red"):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), colour).save(file, "JPEG")
    return file.getvalue()


def show(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg())


def pope(folder, thing="dog"):
    """The clone: the questions lie deep, and other files of the same kind beside them."""
    rows = [{"question_id": 1, "image": image, "text": f"Is there a {thing}?", "label": "yes"} for image in IMAGES]
    for split in ("random", "popular", "adversarial"):
        text = "\n".join(map(json.dumps, rows))  # no line end behind the last, as there
        write(folder / "output" / "coco" / f"coco_pope_{split}.json", text)
        write(folder / "output" / "seem" / "gqa" / f"gqa_pope_seem_{split}.json", '{"image": "n1.jpg"}\n')
    write(folder / "POPEv2" / "dataset" / "annotations.json", [{"no": "AMBER"}])
    write(folder / "answer" / "example.json", "{}")


def amber(folder):
    write(folder / "data" / "annotations.json", [
        {"id": 1, "type": "generative", "truth": ["man"], "hallu": []},
        {"id": 1005, "type": "discriminative-hallucination", "truth": "no"},
    ])  # fmt: skip
    write(folder / "data" / "query" / "query_generative.json", [{"id": 1, "image": "AMBER_1.jpg", "query": "Tell."}])
    asked = [{"id": 1005, "image": "AMBER_1.jpg", "query": "Is there a dog?"}]
    write(folder / "data" / "query" / "query_discriminative.json", asked)
    write(folder / "data" / "query" / "query_all.json", [])
    write(folder / "data" / "relation.json", {"man": []})
    write(folder / "data" / "safe_words.txt", "thing\n")
    write(folder / "data" / "metrics.txt", "CHAIR\n")


def coco(folder, year=2014, name="COCO_val2014_{:012}.jpg"):
    images = [{"id": number, "file_name": name.format(number)} for number in (42, 139)]
    objects = [{"image_id": number, "category_id": 18} for number in (42, 139)]
    whole = {"info": {}, "images": images, "categories": [{"id": 18, "name": "dog"}], "annotations": objects}
    for split, content in (("val", whole), ("train", {**whole, "images": [], "annotations": []})):
        write(folder / "annotations" / f"instances_{split}{year}.json", content)
        listed = {"images": content["images"], "annotations": []}
        write(folder / "annotations" / f"captions_{split}{year}.json", listed)
        write(folder / "annotations" / f"person_keypoints_{split}{year}.json", content)


def rlaif_v(folder):
    template = [{"question_type": "attribute", "image_id": "df62", "image_src": f"https://x/8/{name}_o.jpg",
                 "image_content": ["Dog"], "question": f"What is {name}?", "gt_answer": "A dog.", "model_answer": ""}
                for name in ("7206", "7413")]  # fmt: skip
    write(folder / "eval" / "data" / "mmhal-bench_answer_template.json", template)
    rows = [
        {"image_id": number, "image": base64.b64encode(jpeg(colour)).decode(), "question": "What is there?"}
        for number, colour in ((139, "blue"), (42, "green"))
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    write(folder / "eval" / "data" / "obj_halbench_300_with_image.jsonl", text)
    write(folder / "eval" / "data" / "RefoMB_dev.jsonl", '{"question": "?"}\n')
    write(folder / "eval" / "data" / "synonyms_refine.txt", "dog, puppy\n")


def hallucination(folder):
    write(folder / "data" / "synonyms.txt", "dog, puppy\n")


@pytest.fixture
def clones(tmp_path):
    """Clones and archives side by side, as their owners call them, and the images as they are unpacked."""
    pope(tmp_path / "POPE")
    amber(tmp_path / "AMBER")
    rlaif_v(tmp_path / "RLAIF-V")
    hallucination(tmp_path / "Hallucination")
    coco(tmp_path / "coco")
    show(tmp_path / "coco" / "val2014", *IMAGES)
    show(tmp_path / "AMBER" / "image", "AMBER_1.jpg")
    show(tmp_path / "MMHal-Bench" / "images", "7206_o.jpg", "7413_o.jpg")
    return tmp_path


@pytest.fixture(autouse=True)
def without_nltk(monkeypatch):
    """Object HalBench's lemmatiser is NLTK's, which need not be here."""
    made = coco_words.words
    monkeypatch.setattr(coco_words, "words", lambda variant, path: made(INSTEAD.get(variant, variant), path))
    monkeypatch.setattr(coco_words, "lemmatiser_version", lambda _: "none")


def found(suites):
    return {suite.name: sorted(picture["path"] for picture in suite.pictures.values()) for suite in suites}


INSTEAD = {"object_halbench": "standalone"}
ALL = "pope,chair,amber,object_halbench,mmhal"


def test_clones_side_by_side_are_read_with_the_images_beside_them(clones):
    suites = load(benchmarks.names(ALL), clones, shared=WORDS)
    val = [str(clones / "coco" / "val2014" / name) for name in IMAGES]
    assert found(suites) == {
        "pope": val,
        "chair": val,
        "amber_generative": [str(clones / "AMBER" / "image" / "AMBER_1.jpg")],
        "amber_discriminative": [str(clones / "AMBER" / "image" / "AMBER_1.jpg")],
        "object_halbench": IMAGES,  # in its file
        "mmhal": [str(clones / "MMHal-Bench" / "images" / f"{name}_o.jpg") for name in ("7206", "7413")],
    }


@pytest.mark.parametrize(
    ("suite", "data"),
    [
        *(("pope", data) for data in ("POPE", "POPE/output", "POPE/output/coco")),
        *(("amber_discriminative", data) for data in ("AMBER", "AMBER/data")),
        *(("amber_generative", data) for data in ("AMBER", "AMBER/data")),
        *(("chair", data) for data in ("coco", "coco/annotations")),
        *(("mmhal", data) for data in ("RLAIF-V", "RLAIF-V/eval", "RLAIF-V/eval/data")),
    ],
)
def test_one_clone_or_a_folder_on_the_way_to_its_files_is_enough_for_its_suite(suite, data, clones):
    for folder in ("coco/val2014", "AMBER/image", "MMHal-Bench/images"):
        for path in (clones / folder).iterdir():
            (clones / "all").mkdir(exist_ok=True)
            shutil.copy(path, clones / "all")
    shared = {**WORDS, **({"synonyms": clones / "Hallucination/data/synonyms.txt"} if suite == "chair" else {})}
    (one,) = load([suite], clones / data, clones / "all", shared=shared)
    (together,) = load([suite], clones, shared=WORDS)
    assert (one.questions, one.files, one.versions) == (together.questions, together.files, together.versions)


@pytest.mark.parametrize(
    ("old", "new"),
    [("POPE", "pope"), ("POPE", "POPE-main"), ("AMBER", "amber-master"), ("RLAIF-V", "rlaif-v"), ("coco", "COCO")],
)
def test_a_clone_by_a_like_name_is_the_same(old, new, clones):
    before = load(benchmarks.names(ALL), clones, shared=WORDS)
    (clones / old).rename(clones / new)
    after = load(benchmarks.names(ALL), clones, shared=WORDS)
    assert [(suite.name, suite.files, suite.questions) for suite in after] == [
        (suite.name, suite.files, suite.questions) for suite in before
    ]


def test_the_folder_of_the_suites_name_comes_first_and_has_the_digest_it_ever_had(clones):
    (clone,) = load(["pope"], clones)
    shutil.copytree(clones / "POPE" / "output" / "coco", clones / "old" / "pope")
    show(clones / "old" / "pope" / "images", *IMAGES)
    (old,) = load(["pope"], clones / "old")
    assert (old.files, old.questions) == (clone.files, clone.questions) and old.files == "0acf65bec4605e74"
    pope(clones / "old" / "POPE", thing="cat")  # a clone beside it changes nothing
    (again,) = load(["pope"], clones / "old")
    assert again.questions == old.questions and again.pictures == old.pictures


def test_two_places_that_differ_are_both_named_and_alike_ones_are_not(clones):
    shutil.copytree(clones / "coco", clones / "coco2014")
    (chair,) = load(["chair"], clones)
    assert "/coco/" in next(iter(chair.pictures.values()))["path"]
    coco(clones / "coco2014", name="{:012}.jpg")
    with pytest.raises(DataError) as error:
        load(["chair"], clones)
    first, second = clones / "coco" / "annotations", clones / "coco2014" / "annotations"
    assert f"suite chair: {first} and {second} both hold instances_*.json, and differ" in str(error.value)
    assert f"put those that are meant in {clones / 'chair'}" in str(error.value)


def test_files_of_another_benchmark_are_not_taken(clones):
    write(clones / "mixed" / "annotations.json", [{"id": 1}])
    write(clones / "mixed" / "questions.jsonl", '{"image_id": 42, "question": "?"}\n')
    write(clones / "mixed" / "data" / "query.json", "{}")
    for suite in benchmarks.names(ALL):
        with pytest.raises(DataError, match=f"suite {suite}: there is no "):
            load([suite], clones / "mixed", shared={**WORDS, "synonyms": clones / "Hallucination/data/synonyms.txt"})
    with pytest.raises(DataError, match="suite amber_generative: there is no query/query_generative"):
        load(["amber_generative"], clones / "POPE", shared=WORDS)


@pytest.mark.parametrize(
    ("suite", "words"),
    [
        ("pope", ("coco_pope_*.json", "pope, POPE/output/coco, output/coco or coco", "github.com/AoiDragon/POPE")),
        ("chair", ("instances_*.json", "chair, coco/annotations", "annotations_trainval2014.zip of cocodataset.org")),
        ("amber", ("query/query_generative.json", "AMBER/data", "github.com/junyangwang0410/AMBER")),
        ("object_halbench", ("obj_halbench_300_with_image.jsonl or questions.jsonl", "github.com/RLHF-V/RLAIF-V")),
        ("mmhal", ("response_template.json or mmhal-bench_answer_template.json", "MMHal-Bench, RLAIF-V/eval/data")),
        ("shr", ("val_images_final.json", "juliozhao/hadpo-data", "HA-DPO/ha_dpo/data/shr")),
        ("mme", ("existence/*.txt", "MME_Benchmark_release_version", "darkyarding/MME")),
    ],
)
def test_files_that_are_missing_are_named_with_the_places_and_where_they_come_from(suite, words, tmp_path):
    with pytest.raises(DataError) as error:
        load(benchmarks.names(suite), tmp_path, shared=WORDS)
    message = str(error.value)
    assert all(word in message for word in (*words, str(tmp_path), "or give another --data DIR")), message


def test_a_part_that_is_missing_names_its_option(clones):
    shutil.rmtree(clones / "Hallucination")
    with pytest.raises(
        DataError, match=r"no synonyms\.txt in .*LisaAnne.*or give --synonyms FILE, or --variant coco80"
    ):
        load(["chair"], clones)
    assert load(["chair"], clones, shared={"variant": "coco80"})
    shutil.rmtree(clones / "coco" / "annotations")
    with pytest.raises(DataError, match=r"no instances_\*\.json in .*--option object_halbench\.annotations=DIR"):
        load(["object_halbench"], clones, shared=WORDS)


def test_the_images_of_a_file_are_those_of_its_questions(clones):
    (suite,) = load(["object_halbench"], clones, shared=WORDS)
    assert [question.image for question in suite.questions] == IMAGES[::-1]
    assert suite.pictures[IMAGES[0]]["bytes"] == jpeg("green")
    (given,) = load(["object_halbench"], clones, clones / "coco", shared=WORDS)
    assert given.pictures == suite.pictures  # they come with the questions
    path = clones / "RLAIF-V" / "eval" / "data" / "obj_halbench_300_with_image.jsonl"
    path.write_text(path.read_text().replace('"image": "', '"image": "?', 1))
    with pytest.raises(DataError, match=r"300_with_image.jsonl, line 1: 'image' is no base64"):
        load(["object_halbench"], clones, shared=WORDS)


def test_mmhals_images_are_read_from_the_file_that_rlaif_v_asks(clones):
    path = clones / "RLAIF-V" / "eval" / "data" / "mmhal-bench_with_image.jsonl"
    rows = [
        {"image": base64.b64encode(jpeg(colour)).decode(), "question": f"What is {name}?"}
        for name, colour in (("7206", "blue"), ("7413", "green"))
    ]
    write(path, "".join(json.dumps(row) + "\n" for row in rows))
    (suite,) = load(["mmhal"], clones)
    assert suite.pictures["7413_o.jpg"] == {"bytes": jpeg("green"), "path": "7413_o.jpg"}
    write(path, "".join(json.dumps(row) + "\n" for row in rows[::-1]))
    with pytest.raises(DataError, match="line 1: asks 'What is 7413"):
        load(["mmhal"], clones)
    write(path, json.dumps(rows[0]))
    with pytest.raises(DataError, match="has 1 questions, not 2"):
        load(["mmhal"], clones)


# Images --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["", "val2014", "images/val2014", "coco/val2014", "COCO/images/val2014", "pope"])
def test_images_are_found_where_coco_is_unpacked(place, clones):
    shutil.rmtree(clones / "coco" / "val2014")
    show(clones / "pictures" / place, *IMAGES)
    (suite,) = load(["pope"], clones / "POPE", clones / "pictures")
    assert found([suite])["pope"] == [str(clones / "pictures" / place / name) for name in IMAGES]


def test_the_first_place_wins_and_what_it_lacks_is_taken_from_the_next(clones):
    given = clones / "given"
    for place in ("pope", "", "val2014", "train2014"):
        show(given / place, IMAGES[0])
    show(clones / "POPE" / "images", *IMAGES)
    for place in ("pope", "", "val2014", "train2014"):
        (suite,) = load(["pope"], clones, given)
        first, last = (suite.pictures[name]["path"] for name in IMAGES)
        assert first == str(given / place / IMAGES[0]) and last == str(clones / "POPE" / "images" / IMAGES[1])
        (given / place / IMAGES[0]).unlink()


def test_a_suite_finds_its_own_images_where_those_of_others_are_given(clones):
    show(clones / "elsewhere", *IMAGES)
    suites = load(benchmarks.names("pope,amber_generative"), clones, clones / "elsewhere", shared=WORDS)
    assert found(suites)["pope"] == [str(clones / "elsewhere" / name) for name in IMAGES]
    assert found(suites)["amber_generative"] == [str(clones / "AMBER" / "image" / "AMBER_1.jpg")]


def test_images_that_are_missing_are_counted_and_the_option_is_named(clones):
    (clones / "coco" / "val2014" / IMAGES[1]).unlink()
    with pytest.raises(DataError) as error:
        load(["pope"], clones)
    assert f"1 of 2 images are missing, the first is {IMAGES[1]!r}; looked in {clones}/coco/val2014" in str(error.value)
    assert str(error.value).endswith("give --images DIR, their folder, or the one that val2014 lies in")
    with pytest.raises(DataError, match="there is no folder nowhere; give --images DIR"):
        load(["pope"], clones, clones.__class__("nowhere"))


# COCO and MME --------------------------------------------------------------------------------------------------------


def test_the_annotations_of_2014_are_read_where_those_of_2017_lie_beside_them(clones):
    (before,) = load(["chair"], clones)
    coco(clones / "coco", 2017, "{:012}.jpg")
    (after,) = load(["chair"], clones)
    assert (after.files, after.questions) == (before.files, before.questions)
    for path in (clones / "coco" / "annotations").glob("*2014.json"):
        path.unlink()
    show(clones / "coco" / "val2017", "000000000042.jpg", "000000000139.jpg")
    (alone,) = load(["chair"], clones)
    assert [question.image for question in alone.questions] == ["000000000042.jpg", "000000000139.jpg"]


@pytest.mark.parametrize("place", ["mme", *mme.Mme.given_out.places, ""])
def test_mme_is_read_where_it_was_unpacked(place, tmp_path):
    folder = tmp_path / "data" / place
    write(folder / "count" / "1.txt", "Two?\tYes\nOne?\tNo\n")
    show(folder / "count", "1.jpg")
    (suite,) = load(["mme"], tmp_path / "data", options={"mme": {"subtasks": ["count"]}})
    assert len(suite.questions) == 2 and suite.pictures["count/1.jpg"]["path"] == str(folder / "count" / "1.jpg")


def test_visual_genome_may_lie_beside_the_files_of_shr(tmp_path):
    write(tmp_path / "shr" / "val_images_final.json", [{"image_id": 1}])
    write(tmp_path / "shr" / "shr_factual_part1.jsonl", '{"1": ["A cat."]}\n')
    regions = [{"image_id": 1, "x": 0, "y": 0, "width": 4, "height": 4, "phrase": "a cat"}]
    genome = {
        "image_data.json": [{"image_id": 1, "width": 8, "height": 8, "url": "https://x/VG_100K/1.jpg"}],
        "region_descriptions.json": [{"id": 1, "regions": regions}],
    }
    for name, content in genome.items():
        write(tmp_path / "VG" / name, content)
    show(tmp_path / "VG" / "VG_100K", "1.jpg")
    (apart,) = load(["shr"], tmp_path)
    for name, content in genome.items():
        write(tmp_path / "old" / "shr" / name, content)
    shutil.copytree(tmp_path / "shr", tmp_path / "old" / "shr", dirs_exist_ok=True)
    (old,) = load(["shr"], tmp_path / "old", tmp_path / "VG")
    assert (apart.questions, apart.files, apart.pictures) == (old.questions, old.files, old.pictures)


def test_a_place_is_looked_for_whole_and_without_its_first_folders(tmp_path):
    files = Files(("*.tsv",), "its archive", ("A/b/c",))
    with pytest.raises(DataError, match=r"no \*\.tsv in .*, nor in its folders own, A/b/c, b/c or c; clone or unpack"):
        places.find(files, tmp_path, "own", "any")
    for place in ("", "c", "b/c", "a/B/c", "own/c", "own"):
        write(tmp_path / place / "x.tsv", "")
        assert places.find(files, tmp_path, "own", "any").resolve() == (tmp_path / place).resolve()
