"""ScienceQA, SEED-Bench, MMMU and MMBench: their files as they are given out, and their metrics."""

from __future__ import annotations

import base64
import csv
import io
import json
import math
import tracemalloc
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from pipeline.base.images import image_files
from training.errors import DataError
from training.evaluate import app
from training.evaluation.benchmarks.mmbench import Mmbench
from training.evaluation.benchmarks.mmmu import Mmmu
from training.evaluation.benchmarks.scienceqa import Scienceqa
from training.evaluation.benchmarks.seed import Seed
from training.evaluation.question import Answer
from training.evaluation.session.generate import ImagePrompt, identify
from training.evaluation.suite import load

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
BENCHMARKS = (Scienceqa, Seed, Mmmu, Mmbench)


def png(shade: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def write_tsv(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(dict.fromkeys(key for row in rows for key in row)), delimiter="\t")
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]], images: Mapping[str, Any], group: int = 100) -> Path:
    """``images``: the columns of images, with their type."""
    path.parent.mkdir(parents=True, exist_ok=True)
    columns: dict[str, Any] = {key: [row[key] for row in rows] for key in rows[0]}
    columns |= {key: pa.array(columns[key], kind) for key, kind in images.items()}
    pq.write_table(pa.table(columns), path, row_group_size=group)
    return path


def bytes_of(suite, question) -> list[bytes]:
    return [image_files.load(suite.pictures[image]) for image in question.images]


def opened(benchmark, data: Path):
    return benchmark.open(data)


def score(benchmark, data: Path, texts: Mapping[str, str | None]) -> dict[str, float | None]:
    questions = benchmark.questions(data)
    return benchmark.score(questions, {id: Answer(text) for id, text in texts.items()}).values()


# MMBench -------------------------------------------------------------------------------------------------------------


def circular(index: int, options: Sequence[str], image: str, **more: Any) -> list[dict[str, Any]]:
    """A question whose first option is right, in all rotations; all but the first refer to its image."""
    rows = []
    for turn in range(len(options)):
        turned = [*options[turn:], *options[:turn]]
        letters = dict(zip("ABCD", [*turned, "", "", ""], strict=False))
        row = {"index": index + 1_000_000 * turn, "question": f"What is {index}?", "hint": "", **letters}
        answer = "ABCD"[(len(options) - turn) % len(options)]
        rows.append({**row, "answer": answer, "category": "object_localization", "l2-category": "finegrained (x)"})
        rows[-1] |= {"image": image if turn == 0 else str(index), "split": "dev", **more}
    return rows


@pytest.fixture
def mmbench(tmp_path: Path) -> Path:
    rows = [
        *circular(5, ["a cat", "a dog"], text_of(png(1)), hint='It is "here",\nyou see\tit'),
        *circular(7, ["red", "blue", "green"], text_of(png(2)), category="color"),
        *circular(9, ["one", "two"], "5", category="color"),
    ]
    # The right answer is the first option throughout.
    write_tsv(tmp_path / "mmbench" / "MMBench_DEV_EN.tsv", rows)
    return tmp_path


def test_mmbench_reads_its_tsv_with_images_and_references(mmbench):
    (suite,) = load(["mmbench"], mmbench)
    assert [question.id for question in suite.questions] == ["5", "1000005", "7", "1000007", "2000007", "9", "1000009"]
    by_id = {question.id: question for question in suite.questions}
    assert by_id["1000007"].truth["options"] == {"A": "blue", "B": "green", "C": "red"}
    assert by_id["1000007"].truth["answer"] == "C" and by_id["1000007"].truth["rotation"] == "7"
    # One picture of 5 and 9: one name, and so one unit of the intervals.
    assert {question.image for question in suite.questions} == {"5", "7"} and by_id["1000009"].image == "5"
    assert bytes_of(suite, by_id["1000009"]) == [png(1)] and bytes_of(suite, by_id["2000007"]) == [png(2)]
    assert by_id["7"].prompt == (
        "What is 7? There are several options:\nA. red\nB. blue\nC. green\n\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert by_id["5"].prompt.startswith('It is "here",\nyou see\tit What is 5? There are several options:\nA. a cat')
    assert suite.prompt == "in the words of lmms_eval" and suite.parser == "official"


def test_mmbench_is_right_only_in_all_rotations(mmbench):
    data = mmbench / "mmbench"
    right = {question.id: question.truth["answer"] for question in Mmbench().questions(data)}
    assert score(Mmbench(), data, right)["circular_accuracy"] == 1.0
    always_a = score(Mmbench(), data, dict.fromkeys(right, "A"))
    assert always_a["circular_accuracy"] == 0.0 and always_a["accuracy"] == pytest.approx(3 / 7)
    assert always_a["chance"] == pytest.approx((4 / 2 + 3 / 3) / 7)
    metrics = score(Mmbench(), data, {**right, "2000007": "I cannot tell"})
    assert metrics["circular_accuracy"] == pytest.approx(2 / 3) and metrics["accuracy"] == pytest.approx(6 / 7)
    assert metrics["category_color_circular_accuracy"] == 0.5
    assert metrics["category_object_localization_circular_accuracy"] == 1.0
    assert metrics["l2_finegrained_x_circular_accuracy"] == pytest.approx(2 / 3)
    assert metrics["unparseable_rate"] == pytest.approx(1 / 7)
    assert metrics["accuracy_with_guesses"] == pytest.approx((6 + 1 / 3) / 7)


def test_a_rotation_that_failed_takes_its_question_out_of_the_circular_accuracy(mmbench):
    data = mmbench / "mmbench"
    right = {question.id: question.truth["answer"] for question in Mmbench().questions(data)}
    metrics = score(Mmbench(), data, {**right, "2000007": None, "5": "B"})
    assert metrics["circular_accuracy"] == 0.5 and metrics["accuracy"] == pytest.approx(5 / 6)
    assert score(Mmbench(), data, dict.fromkeys(right))["circular_accuracy"] is None


def test_without_rotations_there_is_no_circular_accuracy(tmp_path):
    rows = [circular(index, ["a", "b"], text_of(png(index)))[0] for index in (1, 2)]
    write_tsv(tmp_path / "MMBench_DEV_EN.tsv", rows)
    metrics = score(Mmbench(), tmp_path, {"1": "A", "2": "B"})
    assert metrics["accuracy"] == 0.5 and "circular_accuracy" not in metrics


def test_a_table_may_say_itself_which_question_a_row_is_an_order_of(tmp_path):
    rows = [{**row, "index": index, "g_index": 0} for index, row in enumerate(circular(0, ["a", "b"], text_of(png(1))))]
    rows[1]["image"] = "0"
    write_tsv(tmp_path / "bench.tsv", rows)
    assert score(Mmbench(), tmp_path, {"0": "A", "1": "A"})["circular_accuracy"] == 0.0


def test_what_is_missing_is_no_option_however_a_table_says_it(tmp_path):
    row = {"index": 1, "question": "What?", "A": "a", "B": "b", "answer": "A", "image": {"bytes": png(1), "path": None}}
    rows = [{**row, "hint": math.nan, "C": math.nan}]
    write_parquet(tmp_path / "mmbench" / "dev.parquet", rows, {"image": IMAGE})
    (suite,) = load(["mmbench"], tmp_path)
    (question,) = suite.questions
    assert question.truth["options"] == {"A": "a", "B": "b"} and "nan" not in question.prompt


def test_empty_lines_of_a_table_are_no_rows(mmbench):
    path = mmbench / "mmbench" / "MMBench_DEV_EN.tsv"
    (before,) = load(["mmbench"], mmbench)
    shown = [bytes_of(before, question) for question in before.questions]
    head, _, rest = path.read_bytes().partition(b"\r\n")
    path.write_bytes(head + b"\r\n\r\n" + rest + b"\r\n")
    (after,) = load(["mmbench"], mmbench)
    assert after.questions == before.questions
    assert [bytes_of(after, question) for question in after.questions] == shown


def test_mmbench_of_the_hub_is_the_same(mmbench, tmp_path):
    (suite,) = load(["mmbench"], mmbench)
    rows = []
    for question in suite.questions:
        options = {letter: question.truth["options"].get(letter, "nan") for letter in "ABCD"}
        hint = 'It is "here",\nyou see\tit' if question.truth["rotation"] == "5" else "nan"
        row = {"index": int(question.id), "question": f"What is {question.truth['rotation']}?", "hint": hint, **options}
        category = "object_localization" if question.truth["rotation"] == "5" else "color"
        row |= {"answer": question.truth["answer"], "category": category, "L2-category": "finegrained (x)"}
        rows.append({**row, "image": {"bytes": bytes_of(suite, question)[0], "path": None}, "source": "x"})
    write_parquet(tmp_path / "hub" / "mmbench" / "en" / "dev-00000-of-00001.parquet", rows, {"image": IMAGE}, group=2)
    write_parquet(tmp_path / "hub" / "mmbench" / "cn" / "dev-00000-of-00001.parquet", rows[:2], {"image": IMAGE})
    (hub,) = load(["mmbench"], tmp_path / "hub")
    for ours, theirs in zip(suite.questions, hub.questions, strict=True):
        assert (ours.id, ours.prompt, ours.truth) == (theirs.id, theirs.prompt, theirs.truth)
        assert bytes_of(suite, ours) == bytes_of(hub, theirs)
    (cn,) = load(["mmbench"], tmp_path / "hub", options={"mmbench": {"file": "cn/dev-*.parquet"}})
    assert len(cn.questions) == 2 and cn.files != hub.files


def test_what_lies_beside_the_file_that_is_read_changes_no_digest(mmbench):
    (before,) = load(["mmbench"], mmbench)
    (mmbench / "mmbench" / "MMBench_TEST_EN.tsv").write_text("index\n")
    (after,) = load(["mmbench"], mmbench)
    assert after.files == before.files and after.questions == before.questions
    folder = mmbench / "mmbench"
    (folder / "MMBench_DEV_EN.tsv").rename(folder / "MMBench_DEV_CN.tsv")
    with pytest.raises(
        DataError, match=r"holds MMBench_DEV_CN.tsv, MMBench_TEST_EN.tsv; choose one with --option mmbe"
    ):
        load(["mmbench"], mmbench)
    (cn,) = load(["mmbench"], mmbench, options={"mmbench": {"file": "MMBench_DEV_CN.tsv"}})
    assert cn.questions == before.questions and cn.versions == {"file": "MMBench_DEV_CN.tsv"}


def test_the_folder_that_vlmevalkit_fills_is_read_as_it_is(mmbench, tmp_path):
    """All tables side by side, some of them no suite's, some without their images."""
    flat = tmp_path / "LMUData"
    image = text_of(png(1))
    plain = {
        "index": 0,
        "question": "How many?",
        "A": "one",
        "B": "two",
        "answer": "B",
        "category": "x",
        "image": image,
    }
    for name in ("MMBench_DEV_EN_V11", "MMBench_TEST_EN", "SEEDBench_IMG", "SEEDBench_IMG_KO", "ScienceQA_TEST",
                 "ScienceQA_VAL", "MMStar", "POPE"):  # fmt: skip
        write_tsv(flat / f"{name}.tsv", [plain])
    (flat / "MMBench_DEV_EN.tsv").write_bytes((mmbench / "mmbench" / "MMBench_DEV_EN.tsv").read_bytes())
    rows = [{**plain, "id": "validation_Math_1", "split": "validation"}]
    write_tsv(flat / "MMMU_DEV_VAL.tsv", rows)
    write_tsv(flat / "MMMU_DEV_VAL_local.tsv", [{**row, "image": ""} for row in rows])
    suites = load(["mmbench", "seed", "scienceqa", "mmmu"], flat)
    names = ["MMBench_DEV_EN.tsv", "SEEDBench_IMG.tsv", "ScienceQA_TEST.tsv", "MMMU_DEV_VAL.tsv"]
    assert [suite.versions["file"] for suite in suites] == names
    assert [len(suite.questions) for suite in suites] == [7, 1, 1, 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[0].update(answer=""), "row 1 has no answer: nobody but the authors' server can score this"),
        (lambda rows: rows[0].update(answer="D"), "row 1: the answer 'D' is none of its options A, B"),
        (lambda rows: rows[1].update(image="77"), "row 2: its image is that of index '77', which has none"),
        (lambda rows: rows[1].update(image=""), "row 2 has no image; download it again"),
        (lambda rows: [row.update(index="x5", image=rows[0]["image"]) for row in rows], "row 1: the index 'x5' is no"),
        (lambda rows: rows[0].update(question=""), "row 1: column 'question' is empty or missing"),
        (lambda rows: rows[1].update(index=5), "id '5' is there twice"),
        (lambda rows: rows[0].pop("question"), "row 1: column 'question' is empty or missing"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_table_is_named(tmp_path, change, message):
    rows = circular(5, ["a cat", "a dog"], text_of(png(1)))
    change(rows)
    write_tsv(tmp_path / "mmbench" / "MMBench_DEV_EN.tsv", rows)
    with pytest.raises(DataError, match=message):
        load(["mmbench"], tmp_path)


def test_an_image_that_is_none_shows_when_it_is_asked_for(tmp_path):
    rows = circular(5, ["a cat", "a dog"], "*" * 100)
    path = write_tsv(tmp_path / "mmbench" / "MMBench_DEV_EN.tsv", rows)
    (suite,) = load(["mmbench"], tmp_path)
    with pytest.raises(DataError, match="row 1: the image cannot be read"):
        identify({"a": ImagePrompt("?", (suite.pictures["5"],))})
    path.write_text(path.read_text()[:-30])
    with pytest.raises(DataError, match=r"row 2 has \d+ cells, not"):
        load(["mmbench"], tmp_path)
    path.unlink()
    with pytest.raises(
        DataError, match=r"suite mmbench: there is no MMBench\*.tsv, .*; clone or unpack MMBench_DEV_EN"
    ):
        load(["mmbench"], tmp_path)
    with pytest.raises(DataError, match=r"holds no MMBench_DEV_EN.tsv or MMBench_DEV_EN_V11.tsv or "):
        Mmbench().read(tmp_path)


def test_images_stay_in_the_file(tmp_path):
    big = [text_of(bytes([at]) * 300_000) for at in range(60)]
    write_tsv(tmp_path / "tsv" / "mmbench" / "a.tsv", [circular(at, ["a", "b"], big[at])[0] for at in range(60)])
    rows = [{"index": at, "question": "?", "A": "a", "B": "b", "answer": "A"} for at in range(60)]
    rows = [{**row, "image": {"bytes": base64.b64decode(big[at]), "path": None}} for at, row in enumerate(rows)]
    write_parquet(tmp_path / "hub" / "mmbench" / "a.parquet", rows, {"image": IMAGE}, group=4)
    del big, rows
    for place in ("tsv", "hub"):
        load(["mmbench"], tmp_path / place)  # what is imported is no part of the measurement
        tracemalloc.start()
        (suite,) = load(["mmbench"], tmp_path / place)
        assert [image_files.load(picture)[0] for picture in suite.pictures.values()] == list(range(60))
        # Of 18 MB no more than a few images at a time.
        assert tracemalloc.get_traced_memory()[1] < 6_000_000
        tracemalloc.stop()


# ScienceQA -----------------------------------------------------------------------------------------------------------


def problem(**more: Any) -> dict[str, Any]:
    basis = {"question": "Which?", "choices": ["ice", "fire"], "answer": 1, "hint": "", "image": None, "task": "closed"}
    return {**basis, "grade": "grade7", "subject": "natural science", "split": "test", "lecture": "x", **more}


@pytest.fixture
def scienceqa(tmp_path: Path) -> Path:
    data = tmp_path / "scienceqa" / "data" / "scienceqa"
    problems = {
        "4": problem(image="image.png", hint="Look."),
        "11": problem(),
        "12": problem(split="train", image="image.png"),
        "20": problem(image="choice.png", grade="grade2", subject="social science", choices=["a", "b", "c"], answer=0),
    }
    for place in ("4/image.png", "20/choice.png"):
        path = data / "images" / "test" / place
        path.parent.mkdir(parents=True)
        path.write_bytes(png(3))
    (data / "problems.json").write_text(json.dumps(problems))
    return tmp_path


def test_scienceqa_reads_its_repository(scienceqa):
    (scienceqa / "coco").mkdir()
    (suite,) = load(["scienceqa"], scienceqa, images=scienceqa / "coco")
    first, second = suite.questions
    assert (first.id, first.image) == ("4", "images/test/4/image.png")
    assert first.prompt == (
        "Context: Look.\nWhich?\nA. ice\nB. fire\nAnswer with the option's letter from the given choices directly."
    )
    assert first.truth["answer"] == "B" and first.truth["groups"] == ["subject_natural_science", "grades_7_12"]
    assert second.truth["groups"] == ["subject_social_science", "grades_1_6"]
    assert suite.versions == {"file": "problems.json", "left out": "1 without an image"}


def test_scienceqa_asks_in_words_alone_where_it_is_told_to(scienceqa):
    (suite,) = load(["scienceqa"], scienceqa, options={"scienceqa": {"text_only": True, "style": "vlmevalkit"}})
    assert [question.images for question in suite.questions] == [
        ("images/test/4/image.png",),
        (),
        ("images/test/20/choice.png",),
    ]
    assert suite.questions[0].prompt == (
        "Hint: Look.\nQuestion: Which?\nOptions:\nA. ice\nB. fire\n"
        "Please select the correct answer from the options above. \n"
    )
    assert suite.versions == {"file": "problems.json"} and suite.prompt == "in the words of vlmevalkit"


def test_scienceqa_of_the_hub_and_of_vlmevalkit(scienceqa, tmp_path):
    (ours,) = load(["scienceqa"], scienceqa)
    rows = [problem(hint="Look."), problem(), problem(grade="grade2", subject="social science")]
    rows[2] |= {"choices": ["a", "b", "c"], "answer": 0}
    for row, image in zip(rows, (png(3), None, png(3)), strict=True):
        row["image"] = image and {"bytes": image, "path": None}
    hub = tmp_path / "hub" / "scienceqa"
    write_parquet(hub / "data" / "test-00000-of-00002.parquet", rows[:2], {"image": IMAGE})
    write_parquet(hub / "data" / "test-00001-of-00002.parquet", rows[2:], {"image": IMAGE})
    write_parquet(hub / "data" / "train-00000-of-00001.parquet", rows, {"image": IMAGE})
    (suite,) = load(["scienceqa"], tmp_path / "hub")
    assert [question.prompt for question in suite.questions] == [question.prompt for question in ours.questions]
    assert [question.id for question in suite.questions] == ["0", "2"]
    assert [bytes_of(suite, question) for question in suite.questions] == [[png(3)], [png(3)]]
    row = {"index": 0, "question": "Which?", "hint": "Look.", "A": "ice", "B": "fire", "answer": "B"}
    write_tsv(
        tmp_path / "kit" / "scienceqa" / "ScienceQA_TEST.tsv",
        [{**row, "image": text_of(png(3)), "category": "Physics"}],
    )
    (kit,) = load(["scienceqa"], tmp_path / "kit")
    assert kit.questions[0].prompt == ours.questions[0].prompt
    assert kit.questions[0].truth["groups"] == ["category_physics"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (problem(answer=2), "problem 4: the answer 2 is not the place of one of its choices"),
        (problem(choices="ice"), "problem 4: the answer 1 is not the place"),
        ({"split": "test"}, "problem 4: key 'image' is missing"),
        (None, "problem 4: not a JSON object"),
    ],
)  # fmt: skip
def test_a_problem_that_is_malformed_is_named(scienceqa, row, message):
    path = scienceqa / "scienceqa" / "data" / "scienceqa" / "problems.json"
    path.write_text(json.dumps({"4": row}))
    with pytest.raises(DataError, match=message):
        load(["scienceqa"], scienceqa)


# SEED-Bench ----------------------------------------------------------------------------------------------------------


def seed_row(number: int, **more: Any) -> dict[str, Any]:
    options = {"choice_a": "one", "choice_b": "two", "choice_c": "three", "choice_d": "four"}
    row = {"question": "How many?", "answer": "B", "data_type": "image", "data_id": f"{number}_9", **options}
    return {**row, "question_id": str(100 + number), "question_type_id": 5, **more}


def test_seed_reads_its_json_and_leaves_videos_out(tmp_path):
    rows = [seed_row(1), seed_row(2, data_type="video", question_type_id=10), seed_row(3, data_id="1_9", answer="A")]
    data = tmp_path / "seed"
    (data / "SEED-Bench-image").mkdir(parents=True)
    (data / "SEED-Bench-image" / "1_9").write_bytes(png(4))
    (data / "SEED-Bench.json").write_text(json.dumps({"questions": rows, "question_type": {}}))
    (suite,) = load(["seed"], tmp_path)
    assert [question.id for question in suite.questions] == ["101", "103"] and len(suite.pictures) == 1
    assert suite.questions[0].prompt == (
        "How many?\nA. one\nB. two\nC. three\nD. four\nAnswer with the option's letter from the given choices directly."
    )
    assert suite.versions == {"file": "SEED-Bench.json", "left out": "1 about videos"} and suite.parser == "lmms_eval"
    metrics = score(Seed(), data, {"101": "Because", "103": "Blue"})
    assert metrics["accuracy"] == 0.5 and metrics["dimension_instances_counting_accuracy"] == 0.5
    assert score(Seed(parser="official"), data, {"101": "B.", "103": "A"})["accuracy"] == 0.5
    (data / "SEED-Bench-image" / "1_9").unlink()
    with pytest.raises(DataError, match="1 of 1 images are missing, the first is 'SEED-Bench-image/1_9'"):
        load(["seed"], tmp_path)


def test_seed_of_the_hub_and_of_vlmevalkit(tmp_path):
    images = [[{"bytes": png(4), "path": None}], [{"bytes": png(shade), "path": None} for shade in range(8)]]
    rows = [seed_row(1), seed_row(2, data_type="video")]
    rows = [{**row, "image": image} for row, image in zip(rows, images, strict=True)]
    write_parquet(tmp_path / "hub" / "seed" / "data" / "test-00000-of-00001.parquet", rows, {"image": pa.list_(IMAGE)})
    (hub,) = load(["seed"], tmp_path / "hub")
    (question,) = hub.questions
    assert (question.id, question.image, bytes_of(hub, question)) == ("101", "1_9", [png(4)])
    row = {"index": 0, "question": "How many?", "A": "one", "B": "two", "C": "three", "D": "four", "answer": "B"}
    row |= {"category": "Instances Counting", "image": text_of(png(4))}
    write_tsv(tmp_path / "kit" / "seed" / "SEEDBench_IMG.tsv", [row])
    (kit,) = load(["seed"], tmp_path / "kit")
    assert kit.questions[0].prompt == question.prompt and kit.questions[0].truth == question.truth


def test_a_json_without_questions_is_refused(tmp_path):
    (tmp_path / "seed").mkdir()
    for text, message in (
        ("{}", "key 'questions' is missing"),
        ('{"questions": {}}', "questions is no list"),
        ('{"questions": [{"question": "?"}]}', "question 1: key 'question_id' is missing"),
    ):
        (tmp_path / "seed" / "SEED-Bench.json").write_text(text)
        with pytest.raises(DataError, match=message):
            load(["seed"], tmp_path)


# MMMU ----------------------------------------------------------------------------------------------------------------


def mmmu_row(
    id: str, question: str, options: str, answer: str, images: Mapping[int, int], **more: Any
) -> dict[str, Any]:
    pictures = {f"image_{at}": {"bytes": png(images[at]), "path": None} if at in images else None for at in range(1, 8)}
    kind = "open" if options == "[]" else "multiple-choice"
    return {
        "id": id,
        "question": question,
        "options": options,
        "answer": answer,
        "question_type": kind,
        **pictures,
        **more,
    }


@pytest.fixture
def mmmu(tmp_path: Path) -> Path:
    rows = [
        mmmu_row("validation_Art_Theory_1", "Who made <image 1>?", '[\'A "B"\', "C\'s"]', "B", {1: 10}),
        mmmu_row("validation_Art_Theory_2", "Which?", "['<image 2>', '<image 1>', 'neither']", "A", {1: 11, 2: 12}),
    ]
    more = [
        mmmu_row("validation_Math_1", "What is x in <image 1>?", "[]", "['1/2', '0.5']", {1: 13, 2: 14}),
        mmmu_row("validation_Math_2", "And y in <image 2>?", "[]", "8", {1: 15, 2: 16}),
    ]
    columns = {f"image_{at}": IMAGE for at in range(1, 8)}
    for subject, of in (("Art_Theory", rows), ("Math", more)):
        write_parquet(tmp_path / "mmmu" / subject / "validation-00000-of-00001.parquet", of, columns)
        write_parquet(tmp_path / "mmmu" / subject / "dev-00000-of-00001.parquet", of[:1], columns)
    return tmp_path


def test_mmmu_reads_every_subject_and_shows_the_images_that_a_question_names(mmmu):
    (suite,) = load(["mmmu"], mmmu)
    first, both, open_, second = suite.questions
    assert first.prompt == (
        "Who made <image 1>?\nA. A \"B\"\nB. C's\n\nAnswer with the option's letter from the given choices directly."
    )
    assert open_.prompt == "What is x in <image 1>?\n\nAnswer the question using a single word or phrase."
    assert [bytes_of(suite, question) for question in suite.questions] == [
        [png(10)],
        [png(11), png(12)],
        [png(13)],
        [png(16)],
    ]
    assert both.images == ("validation_Art_Theory_2:1", "validation_Art_Theory_2:2") and both.image == both.images[0]
    assert first.truth["groups"] == ["subject_art_theory", "domain_art_and_design"]
    assert open_.truth["answers"] == ["1/2", "0.5"] and second.truth["answers"] == ["8"]
    (dev,) = load(["mmmu"], mmmu, options={"mmmu": {"split": "dev"}})
    assert len(dev.questions) == 2


def test_open_questions_are_a_choice_for_vlmevalkit(mmmu):
    data = mmmu / "mmmu"
    ids = [question.id for question in Mmmu().questions(data)]
    said = dict(zip(ids, ["B", "A", "It is 1/2", "Other answers"], strict=True))
    official, kit = (score(Mmmu(parser=parser), data, said) for parser in ("official", "vlmevalkit"))
    assert official["accuracy"] == kit["accuracy"] == 0.75 and official["unparseable_rate"] == 0.0
    said[ids[3]] = "no idea"
    assert score(Mmmu(parser="vlmevalkit"), data, said)["unparseable_rate"] == 0.25


def test_mmmu_of_vlmevalkit(mmmu, tmp_path):
    (hub,) = load(["mmmu"], mmmu)
    rows = []
    for at, question in enumerate(hub.questions):
        images = [text_of(data) for data in bytes_of(hub, question)]
        row = {"index": at, "id": question.id, "question": question.prompt.split("\n")[0], "split": "validation"}
        row |= {letter: question.truth["options"].get(letter, "") for letter in "ABC"}
        row |= {"answer": question.truth["answer"] or str(question.truth["answers"]), "category": "x"}
        row["image"] = str(images) if len(images) > 1 else images[0]
        rows.append(row)
    rows[3]["question"] = rows[3]["question"].replace("<image 2>", "<image 1>")
    write_tsv(
        tmp_path / "kit" / "mmmu" / "MMMU_DEV_VAL.tsv",
        [*rows, {**rows[0], "index": 9, "id": "dev_Art_1", "split": "dev"}],
    )
    (kit,) = load(["mmmu"], tmp_path / "kit")
    assert [question.truth for question in kit.questions] == [question.truth for question in hub.questions]
    assert [bytes_of(kit, question) for question in kit.questions] == [
        bytes_of(hub, question) for question in hub.questions
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (mmmu_row("validation_Art_1", "Is <image 2> it?", "['a', 'b']", "A", {1: 1}), "row 1: image 2 is missing"),
        (mmmu_row("validation_Art_1", "Is it?", "['a', 'b']", "A", {}), "row 1: image 1 is missing"),
        (mmmu_row("test_Art_1", "Is <image 1>?", "['a', 'b']", "?", {1: 1}), "row 1 has no answer: nobody but"),
        (mmmu_row("test_Art_1", "Is <image 1>?", "[]", "?", {1: 1}), "row 1 has no answer: nobody but"),
        (mmmu_row("validation_Art_1", "Is <image 1>?", "['a', 'b'", "A", {1: 1}), "row 1: options is no list"),
        (mmmu_row("validation_Art_1", "Is <image 1>?", "['a', 'b']", "C", {1: 1}), "the answer 'C' is none of its"),
        (mmmu_row("validation_Art_1", "Is <image 1>?", "{'A': 'a', 'B': 'b'}", "A", {1: 1}), "which is no list"),
        (mmmu_row("validation_Art_1", "Is <image 1>?", "5", "A", {1: 1}), "row 1: options is 5, which is no list"),
    ],
)  # fmt: skip
def test_a_row_of_mmmu_that_is_malformed_is_named(tmp_path, row, message):
    columns = {f"image_{at}": IMAGE for at in range(1, 8)}
    write_parquet(tmp_path / "mmmu" / "Art" / "validation-00000-of-00001.parquet", [row], columns)
    with pytest.raises(DataError, match=message):
        load(["mmmu"], tmp_path)


def test_a_parquet_file_that_is_damaged_is_named(mmmu):
    path = mmmu / "mmmu" / "Math" / "validation-00000-of-00001.parquet"
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"validation-00000-of-00001.parquet cannot be read: "):
        load(["mmmu"], mmmu)


def test_bytes_that_are_missing_show_when_they_are_asked_for(tmp_path):
    row = {**problem(), "image": {"bytes": None, "path": "a.png"}}
    write_parquet(tmp_path / "scienceqa" / "test-00000-of-00001.parquet", [row], {"image": IMAGE})
    (suite,) = load(["scienceqa"], tmp_path)
    with pytest.raises(DataError, match="row group 1, row 1: column 'image' has no bytes of an"):
        bytes_of(suite, suite.questions[0])


# All of them ---------------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.lists(st.sampled_from(["A", "B", "(A)", "B.", "", "none", "the answer is a"]), min_size=3, max_size=3))
def test_what_holds_whatever_is_said(tmp_path_factory, said):
    data = tmp_path_factory.mktemp("seed")
    rows = [seed_row(number) for number in range(3)]
    (data / "SEED-Bench.json").write_text(json.dumps({"questions": rows}))
    for parser in ("official", "lmms_eval", "vlmevalkit"):
        metrics = score(Seed(parser=parser), data, {str(100 + number): said[number] for number in range(3)})
        right, guessed, unread = (metrics[name] for name in ("accuracy", "accuracy_with_guesses", "unparseable_rate"))
        assert 0 <= right <= guessed <= 1 and right + unread <= 1 and metrics["chance"] == 0.25
        assert guessed == pytest.approx(right + unread / 4)


def test_from_the_command_line_to_the_table(mmbench, scienceqa, mmmu, tmp_path, ray_cluster):
    command = ["canned", "--suite", "mmbench,scienceqa,mmmu", "--data", tmp_path, "--output", tmp_path / "out"]
    command += ["--engine", "kind=scripted", "--engine", 'texts=["A"]', "--option", "scienceqa.text_only=true"]
    done = CliRunner().invoke(app, [*map(str, command)])
    assert done.exit_code == 0, done.output
    assert "| mmbench | circular_accuracy | 0.000 | 0.000 to 0.000 |" in done.stdout
    assert "| mmbench | accuracy | 0.429 |" in done.stdout and "| mmbench | chance | 0.429 |" in done.stdout
    suites = json.loads((tmp_path / "out" / "results.json").read_text())["suites"]
    assert [suites[name]["images"] for name in ("mmbench", "scienceqa", "mmmu")] == [2, 3, 4]
    assert [suites[name]["counts"]["asked"] for name in suites] == [7, 3, 4]
    assert not any(suites[name]["counts"]["failed"] for name in suites)
    assert suites["mmbench"]["provenance"]["prompt"] == "in the words of lmms_eval"
    assert suites["scienceqa"]["metrics"]["accuracy"]["value"] == pytest.approx(1 / 3)
    metrics = {name: metric["value"] for name, metric in suites["mmmu"]["metrics"].items()}
    assert metrics["accuracy"] == 0.25 and metrics["subject_math_accuracy"] == 0.0
    assert metrics["chance"] == pytest.approx((1 / 2 + 1 / 3) / 4)
    # What was asked: in words alone, about one image, and about two.
    shards = sorted((tmp_path / "out" / "source").glob("*.arrow"))
    asked = pa.concat_tables(pa.ipc.open_file(path).read_all() for path in shards)["images"].to_pylist()
    assert sorted(map(len, asked)) == [0, *[1] * 12, 2]
    again = CliRunner().invoke(app, [*map(str, command), "--limit", "1"])
    assert again.exit_code == 0 and "- mmbench: 1 images; " in again.stdout, again.output


@pytest.mark.parametrize("name", ["seed", "scienceqa"])
def test_rows_that_do_not_name_their_image_have_each_their_own(name, tmp_path):
    """A table in a benchmark's layout without its ``data_id``, or with an ``index`` that begins anew in each part."""
    rows = []
    for shade in (1, 2):
        row = {"question": "Which?", "image": {"bytes": png(shade), "path": None}, "answer": 0, "hint": ""}
        if name == "seed":
            row |= {"question_id": f"q{shade}", "answer": "A", "choice_a": "a", "choice_b": "b"}
        else:
            row |= {"index": 7, "choices": ["a", "b"], "subject": "x", "grade": "grade2"}
        rows.append(row)
    write_parquet(tmp_path / name / "test-0.parquet", rows, {"image": IMAGE})
    (suite,) = load([name], tmp_path)
    assert [bytes_of(suite, question) for question in suite.questions] == [[png(1)], [png(2)]]
    assert len({question.image for question in suite.questions}) == 2
