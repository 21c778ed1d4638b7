"""MME's folders as they are distributed, its numbers as its ``calculation.py`` computes them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from pipeline.base.errors import ConfigError
from training.errors import DataError
from training.evaluate import app
from training.evaluation.benchmarks import make, mme
from training.evaluation.benchmarks.mme import COGNITION, PERCEPTION, SUBTASKS, Mme, reading
from training.evaluation.question import Answer, Question
from training.evaluation.suite import load
from training.evaluation.tally import Tally

#: Subtasks that are published with folders of their own for texts and images.
APART = ("artwork", "celebrity", "landmark", "posters", "scene")


def write(data: Path, subtasks: Sequence[str] = SUBTASKS, names: Sequence[str] = ("0001",)) -> Path:
    """Each subtask in the layout that it is published in; the first question of an image is true."""
    for subtask in subtasks:
        texts, images = data / subtask, data / subtask
        if subtask in APART:
            texts, images = texts / "questions_answers_YN", images / "images"
        for folder in (texts, images):
            folder.mkdir(parents=True, exist_ok=True)
        for name in names:
            lines = [f"Is {thing} of {name} in it? Please answer yes or no." for thing in (subtask, "nothing")]
            (texts / f"{name}.txt").write_text(f"{lines[0]}\tYes\n{lines[1]}\tNo\n")
            suffix = "png" if subtask in COGNITION else "jpg"
            Image.new("RGB", (8, 8), "red").save(images / f"{name}.{suffix}")
    return data


def questions_of(subtask: str, images: int) -> list[Question]:
    return [
        Question(f"{subtask}/{image}:{place}", f"{subtask}/{image}.jpg", "?", {"subtask": subtask, "answer": answer})
        for image in range(images)
        for place, answer in ((1, "yes"), (2, "no"))
    ]


def subtask_values(subtask: str, texts: Sequence[str | None]) -> dict[str, float | None]:
    """The metrics of one subtask; each two of ``texts`` answer an image, whose truths are yes and no."""
    tally = tally_of({subtask: texts})
    return {
        name.removeprefix(f"{subtask}_"): value
        for name, value in tally.values().items()
        if name.startswith(f"{subtask}_")
    }


def tally_of(texts: Mapping[str, Sequence[str | None]]) -> Tally:
    questions = [question for subtask, of in texts.items() for question in questions_of(subtask, len(of) // 2)]
    said = [text for of in texts.values() for text in of]
    return Mme().score(questions, {question.id: Answer(text) for question, text in zip(questions, said, strict=True)})


# How an answer is read -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("yes", "yes"),
        ("no", "no"),
        ("YES", "yes"),
        ("Yes, there is.\n", "yes"),
        ("No.", "no"),
        (" Yes", "yes"),  # four characters are just enough
        ("  Yes", None),  # and these are not
        ("  no", "no"),
        ("   no", None),
        ("**Yes**", None),
        ('"No"', "no"),
        ("It is: yes", None),
        ("There is no dog.", None),
        ("Not at all", "no"),
        ("None", "no"),
        ("know", "no"),  # wherever in the four characters
        ("I know", None),
        ("an o", None),
        ("noyes", "no"),  # "noye" holds no "yes"
        ("ayes", "yes"),
        ("y es", None),
        ("ja", None),
        ("", None),
        ("İyes", None),  # a letter that is two characters in lower case: "i̇ye"
    ],
)
def test_the_first_four_characters_are_read(text, label):
    assert reading(text) == label


# Values by hand ------------------------------------------------------------------------------------------------------


def test_accuracy_counts_questions_and_accuracy_plus_images():
    # Right of six: both, the first, none. 3 / 6 and 1 / 3.
    metrics = subtask_values("count", ["Yes", "No", "Yes", "Yes", "No", "Yes"])
    assert metrics["accuracy"] == 0.5 and metrics["accuracy_plus"] == pytest.approx(1 / 3)
    assert metrics["score"] == pytest.approx(50 + 100 / 3)
    # Said yes: 1st, 3rd, 4th, 6th; of these true: 1st, 3rd. True: 1st, 3rd, 5th.
    assert metrics["precision"] == 0.5 and metrics["recall"] == pytest.approx(2 / 3)
    assert metrics["f1"] == pytest.approx(4 / 7) and metrics["yes_ratio"] == pytest.approx(4 / 6)


def test_an_answer_that_cannot_be_read_is_wrong_and_in_neither_precision_nor_recall():
    # A true and a false one are not read; what is left is one hit and one right denial.
    metrics = subtask_values("color", ["There is", "No", "Yes", "I do not think so"])
    assert metrics["accuracy"] == 0.5 and metrics["accuracy_plus"] == 0.0 and metrics["score"] == 50.0
    assert metrics["precision"] == metrics["recall"] == metrics["f1"] == 1.0
    assert metrics["unparseable_rate"] == 0.5 and metrics["yes_ratio"] == 0.25


def test_always_yes_is_half_right_and_never_both():
    metrics = subtask_values("OCR", ["Yes"] * 8)
    assert (metrics["accuracy"], metrics["accuracy_plus"], metrics["score"]) == (0.5, 0.0, 50.0)
    assert (metrics["precision"], metrics["recall"], metrics["yes_ratio"]) == (0.5, 1.0, 1.0)


def test_precision_of_a_model_that_never_says_yes_is_unknown_not_zero():
    metrics = subtask_values("OCR", ["No", "No"])
    assert metrics["precision"] is None and metrics["recall"] == 0.0
    assert {subtask_values("OCR", ["?", "?"])[name] for name in ("precision", "recall", "f1")} == {None}


def test_perception_and_cognition_are_the_sums_of_their_scores():
    right, half, wrong = ["Yes", "No"], ["Yes", "Yes"], ["No", "Yes"]
    said = {subtask: right if subtask in PERCEPTION else half for subtask in SUBTASKS}
    metrics = tally_of({**said, "scene": half, "code_reasoning": wrong}).values()
    assert metrics["perception"] == 9 * 200 + 50 and metrics["cognition"] == 3 * 50 and metrics["total"] == 2000
    assert metrics["scene_score"] == 50 and metrics["code_reasoning_score"] == 0
    # Of 28 questions 9 * 2 + 1 + 3 right, and of 14 images 9.
    assert metrics["accuracy"] == pytest.approx(22 / 28) and metrics["accuracy_plus"] == pytest.approx(9 / 14)


def test_a_sum_is_unknown_unless_all_its_subtasks_are_there():
    tally = tally_of({subtask: ["Yes", "No"] * 2 for subtask in SUBTASKS if subtask != "OCR"})
    metrics = tally.values()
    assert metrics["cognition"] == 800 and metrics["existence_score"] == 200
    assert {metrics[name] for name in ("perception", "total", "OCR_score", "OCR_accuracy")} == {None}
    intervals = tally.intervals(20)
    assert intervals["perception"] is None and intervals["cognition"] == [800.0, 800.0]
    alone = tally_of({subtask: ["Yes", "No"] for subtask in SUBTASKS}).intervals(20)  # one image of each
    assert alone["cognition"] is None and alone["accuracy"] == [1.0, 1.0]


def test_a_failed_answer_counts_in_nothing_and_takes_its_image_from_accuracy_plus():
    tally = tally_of({"count": ["Yes", None, "Yes", "No"]})
    metrics = tally.values()
    assert metrics["count_accuracy"] == 1.0 and metrics["count_accuracy_plus"] == 1.0 and metrics["count_score"] == 200
    assert tally.counts == {"asked": 4, "failed": 1, "truncated": 0}
    assert [tally.sums[f"count_{name}"].sum(axis=0)[1] for name in ("accuracy", "accuracy_plus")] == [3, 1]
    assert (
        subtask_values("count", ["Yes", None])["accuracy_plus"] is None
        and subtask_values("count", ["Yes", None])["score"] is None
    )


@settings(max_examples=25)
@given(
    st.dictionaries(
        st.sampled_from(SUBTASKS),
        st.lists(st.tuples(*[st.sampled_from(["Yes", "no", "maybe", "", "**no"])] * 2), min_size=1, max_size=6),
        min_size=1,
    ),
    st.randoms(),
)
def test_what_holds_whatever_is_said(answered, rng):
    texts = {subtask: [text for both in of for text in both] for subtask, of in answered.items()}
    tally = tally_of(texts)
    metrics = tally.values()
    for subtask, of in texts.items():
        accuracy, plus, score = (metrics[f"{subtask}_{name}"] for name in ("accuracy", "accuracy_plus", "score"))
        # An image with both right has two questions right; one with one right has one.
        assert 2 * accuracy - 1 <= plus + 1e-9 and plus <= accuracy and score == pytest.approx(100 * (accuracy + plus))
        assert accuracy + metrics[f"{subtask}_unparseable_rate"] <= 1
        images = len(of) // 2
        assert accuracy * 2 * images == pytest.approx(round(accuracy * 2 * images))
    assert (metrics["perception"] is None) == (not set(PERCEPTION) <= set(texts))
    assert (metrics["total"] is None) == (set(SUBTASKS) != set(texts))
    # The order of what was asked changes nothing.
    questions = [question for subtask, of in texts.items() for question in questions_of(subtask, len(of) // 2)]
    in_order = [text for of in texts.values() for text in of]
    answers = {question.id: Answer(text) for question, text in zip(questions, in_order, strict=True)}
    rng.shuffle(questions)
    assert Mme().score(questions, answers).values() == metrics


# The folders ---------------------------------------------------------------------------------------------------------


def test_both_layouts_are_read_and_every_image_is_found(tmp_path):
    write(tmp_path / "mme", names=("0001", "a.b"))
    (suite,) = load(["mme"], tmp_path)
    assert len(suite.questions) == 14 * 2 * 2 and len(suite.pictures) == 14 * 2
    images = {question.image for question in suite.questions}
    assert {
        "artwork/images/0001.jpg",
        "artwork/images/a.b.jpg",
        "existence/0001.jpg",
        "code_reasoning/0001.png",
    } < images
    first = suite.questions[0]
    assert first.prompt == "Is existence of 0001 in it? Please answer yes or no."
    assert (first.id, first.truth) == ("existence/0001:1", {"subtask": "existence", "answer": "yes"})
    assert (suite.parser, suite.versions, suite.prompt) == ("official", {"subtasks": "all"}, "as in the data")


@pytest.mark.parametrize("nested", mme.Mme.given_out.places)
def test_the_archive_may_lie_as_it_was_unpacked(tmp_path, nested):
    write(tmp_path / "flat" / "mme")
    write(tmp_path / "nested" / "mme" / nested)
    (tmp_path / "nested" / "mme" / "eval_tool").mkdir()
    (tmp_path / "nested" / "mme" / "eval_tool" / "readme.txt").write_text("how to run it")
    (flat,), (inner,) = load(["mme"], tmp_path / "flat"), load(["mme"], tmp_path / "nested")
    assert (inner.questions, inner.files) == (flat.questions, flat.files)
    assert all(nested in str(picture["path"]) for picture in inner.pictures.values())


def test_its_own_images_are_taken_where_those_of_other_suites_lie_elsewhere(tmp_path):
    write(tmp_path / "mme")
    (tmp_path / "coco").mkdir()
    (suite,) = load(["mme"], tmp_path, images=tmp_path / "coco")
    assert len(suite.pictures) == 14


def test_what_is_distributed_is_tolerated(tmp_path):
    write(tmp_path, ["count", "scene"])
    (tmp_path / "count" / "0001.txt").write_bytes(b"\xef\xbb\xbfTwo caf\xc3\xa9s?\tYes\r\n\r\nOne?\tNO \r\n\n \n")
    (tmp_path / "count" / "._0001.txt").write_bytes(b"\x00\x05\x16\x07")  # what an archive made on a Mac adds
    (tmp_path / "count" / ".DS_Store").write_bytes(b"\x00")
    (tmp_path / "count" / "0001.jpg").rename(tmp_path / "count" / "0001.JPG")
    questions = Mme(subtasks=("count",), suffix=" Briefly.").questions(tmp_path)
    assert [question.prompt for question in questions] == ["Two cafés? Briefly.", "One? Briefly."]
    assert [question.truth["answer"] for question in questions] == ["yes", "no"]
    assert {question.image for question in questions} == {"count/0001.JPG"}


def test_some_subtasks_are_asked_and_told(tmp_path):
    write(tmp_path / "mme", ["count", "existence", "scene"])
    (suite,) = load(["mme"], tmp_path, options={"mme": {"subtasks": ["scene", "count"]}})
    assert [question.truth["subtask"] for question in suite.questions] == ["count", "count", "scene", "scene"]
    assert suite.versions == {"subtasks": "count, scene"}
    with pytest.raises(ConfigError, match=r"option subtasks.0: Input should be 'existence', 'count'"):
        make(["mme"], {"mme": {"subtasks": ["counts"]}})


TEXT = Path("count", "0001.txt")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: (data / "count").rename(data / "counts"), "/count; put the subtask count of MME there, or name"),
        (lambda data: (data / "count" / "0001.jpg").unlink(), "0001.txt asks about an image that is not there; put 00"),
        (lambda data: (data / TEXT).unlink(), "/count holds no questions; put the subtask's NAME.txt there"),
        (lambda data: (data / TEXT).write_text("a?\tYes\n"), "count/0001.txt holds 1 questions, not two"),
        (lambda data: (data / TEXT).write_text("a?\tYes\n" * 3), "count/0001.txt holds 3 questions"),
        (lambda data: (data / TEXT).write_text("a?\tYes\n\nb? No\n"), "count/0001.txt, line 3: write the question, a"),
        (lambda data: (data / TEXT).write_text("a?\tMaybe\n"), "count/0001.txt, line 1: write the question, a tab"),
        (lambda data: (data / TEXT).write_text("a?\t\tNo\n"), "count/0001.txt, line 1: write the question, a tab"),
        (lambda data: (data / TEXT).write_bytes(b"caf\xe9?\tYes\n"), "count/0001.txt cannot be read: 'utf-8'"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_folder_is_named(tmp_path, change, message):
    write(tmp_path)
    change(tmp_path)
    with pytest.raises(DataError, match=message):
        Mme().questions(tmp_path)


def test_a_limit_is_spread_over_the_subtasks(tmp_path):
    names = [f"{number:04}" for number in range(5)]
    write(tmp_path / "mme", names=names)
    for limit, least, most in ((14, 1, 1), (20, 1, 2), (999, 5, 5)):
        (suite,) = load(["mme"], tmp_path, limit=limit)
        images = [sum(image.startswith(f"{subtask}/") for image in suite.pictures) for subtask in SUBTASKS]
        assert (sum(images), min(images), max(images)) == (min(limit, 70), least, most)
        assert len(suite.questions) == 2 * len(suite.pictures)
    (again,), (other,) = load(["mme"], tmp_path, limit=14), load(["mme"], tmp_path, limit=14, seed=1)
    assert again.pictures != other.pictures and again.pictures == load(["mme"], tmp_path, limit=14)[0].pictures


def test_the_digest_tells_which_texts_there_are_whatever_their_order(tmp_path):
    write(tmp_path / "a" / "mme")
    write(tmp_path / "b" / "mme", SUBTASKS[::-1])
    (a,), (b,) = load(["mme"], tmp_path / "a"), load(["mme"], tmp_path / "b")
    assert a.files == b.files
    (tmp_path / "b" / "mme" / "scene" / "questions_answers_YN" / "0001.txt").write_text("a?\tYes\nb?\tNo\n")
    assert load(["mme"], tmp_path / "b")[0].files != a.files


def test_from_the_command_line_to_the_table(tmp_path, ray_cluster):
    write(tmp_path / "data" / "mme", ["existence", *COGNITION])
    command = ["canned", "--suite", "mme", "--data", tmp_path / "data", "--output", tmp_path / "out"]
    command += ["--engine", "kind=scripted", "--engine", 'texts=["Yes, it is."]']
    command += ["--option", "mme.subtasks=[existence, code_reasoning, text_translation, numerical_calculation, "]
    command[-1] += "commonsense_reasoning]"
    done = CliRunner().invoke(app, [*map(str, command)])
    assert done.exit_code == 0, done.output
    assert "| mme | cognition (0 to 800) | 200.000 | - |" in done.stdout
    assert "| mme | perception (0 to 2000) | - | - |" in done.stdout
    results = json.loads((tmp_path / "out" / "results.json").read_text())["suites"]["mme"]
    metrics = results["metrics"]
    assert metrics["perception"] == {"value": None, "interval": None}
    assert metrics["accuracy"]["value"] == 0.5 and metrics["accuracy_plus"]["value"] == 0.0
    assert results["images"] == 5 and results["provenance"]["suite"] == "mme@1"
