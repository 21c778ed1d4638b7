"""MM-Vet: its folder as it is given out, and grades as its own script reads them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from training.errors import DataError
from training.evaluate import app
from training.evaluation.benchmarks.mmvet import Mmvet, grade
from training.evaluation.question import Answer
from training.evaluation.suite import load


def row(answer: str = "5", *capability: str, **more: object) -> dict[str, object]:
    basis = {"imagename": "v1_0.png", "imagesource": "x", "question": "What is x?", "answer": answer}
    return {**basis, "capability": list(capability or ("ocr",)), **more}


ROWS = {
    "v1_0": row("-1<AND>-5", "math", "ocr"),
    "v1_1": row("red<OR>dark red", "rec"),
    "v1_2": row("5", "ocr", "math", imagename="v1_2.jpg"),
    "v1_3": row("a king", "know", "rec", "gen"),
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """As the published archive unpacks."""
    folder = tmp_path / "mmvet" / "mm-vet"
    (folder / "images").mkdir(parents=True)
    for name in ("v1_0.png", "v1_2.jpg"):
        Image.new("RGB", (8, 8), "red").save(folder / "images" / name)
    (folder / "mm-vet.json").write_text(json.dumps(ROWS))
    (folder / "bard_set.json").write_text("[]")
    return tmp_path


@pytest.mark.parametrize(
    ("judgement", "value"),
    [
        ("0.5", 0.5),
        ("1.0", 1.0),
        ("1", 1.0),
        ("0", 0.0),
        (" 0.3\n", 0.3),
        ("0.8 since half of it is there", 0.8),
        ("0.25", 0.25),
        (".5", 0.5),
        ("0.5.", 0.5),
        ("**0.5**", 0.5),
        ("Correctness: 0.7", 0.7),
        ("score:0.7,", 0.7),
        ("0.5\n\nThe answer has one part.", 0.5),
        ("", None),
        ("1.1", None),
        ("-0.1", None),
        ("5", None),
        ("0.5/1.0", None),
        ("50%", None),
        ("half", None),
        ("It is 0.5", None),
        ("nan", None),
        ("inf", None),
        ("x = 0.5 | 1.0", None),
    ],
)
def test_a_grade_is_the_number_that_a_judgement_begins_with(judgement, value):
    assert grade(judgement) == value


def score(judgements: Mapping[str, str | None], data: Path):
    benchmark = Mmvet()
    answers = {id: Answer(None if judgement is None else "x = 5", judgement) for id, judgement in judgements.items()}
    return benchmark.score(benchmark.questions(data / "mmvet" / "mm-vet"), answers)


def test_scores_of_capabilities_and_of_what_goes_together(data):
    tally = score({"v1_0": "0.5", "v1_1": "1.0", "v1_2": "0.0", "v1_3": "0.4"}, data)
    metrics = tally.values()
    assert metrics["score"] == pytest.approx(1.9 / 4)
    assert metrics["capability_ocr"] == metrics["capability_math"] == metrics["integration_ocr_math"] == 0.25
    assert metrics["capability_rec"] == pytest.approx(0.7)
    assert (metrics["integration_rec"], metrics["integration_rec_know_gen"]) == (1.0, pytest.approx(0.4))
    assert metrics["capability_spat"] is None and metrics["unparseable_rate"] == 0.0
    # Questions about one picture are one unit of the intervals.
    assert tally.images == ("images/v1_0.png", "images/v1_2.jpg")


def test_what_has_no_grade_is_left_out_and_counted(data):
    tally = score({"v1_0": "0.5", "v1_1": "It is right.", "v1_2": None, "v1_3": "2"}, data)
    metrics = tally.values()
    assert metrics["score"] == 0.5 and metrics["capability_rec"] is None and metrics["integration_rec"] is None
    assert metrics["unparseable_rate"] == pytest.approx(2 / 3)
    assert tally.counts == {"asked": 4, "failed": 1, "truncated": 0, "unparseable": 2}
    with pytest.raises(ValueError, match="id 'v1_0' has no judgement"):
        Mmvet().score(Mmvet().questions(data / "mmvet" / "mm-vet"), dict.fromkeys(ROWS, Answer("5")))


def test_a_judge_is_told_what_joins_the_parts_and_braces_stay_braces(data):
    (suite,) = load(["mmvet"], data)
    prompt = suite.judge_prompt(suite.questions[0], "{right} is\nx = -1")
    assert "\n-1 <AND> -5\n" in prompt and "> {right} is\n> x = -1\n" in prompt and "What is x?" in prompt
    assert "red <OR> dark red" in suite.judge_prompt(suite.questions[1], "red")


def test_from_the_command_line_with_saved_judgements(data, tmp_path, ray_cluster):
    command = ["canned", "--suite", "mmvet", "--data", data, "--output", tmp_path / "out", "--engine", "kind=scripted"]
    command += ["--engine", 'texts=["x = 5"]', "--judge", "gpt-4-0613", "--judgements", tmp_path / "said.jsonl"]
    first = CliRunner().invoke(app, [*map(str, command)])
    assert first.exit_code == 2 and "4 of 4 answers have no judgement" in first.output
    lines = [json.loads(line) for line in (tmp_path / "out" / "to_judge.jsonl").read_text().splitlines()]
    grades = [0.5, "0.5", 0, 1]  # as a file has them: numbers or texts
    judgements = [{"id": line["id"], "judgement": grade} for line, grade in zip(lines, grades, strict=True)]
    (tmp_path / "said.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in judgements))
    done = CliRunner().invoke(app, [*map(str, command)])
    assert done.exit_code == 0 and "| mmvet | score | 0.500 | " in done.stdout, done.output


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "is no object with a question for each id"),
        ({"v1_0": {"question": "?"}}, "mm-vet.json, v1_0: key 'imagename' is missing"),
        ({"v1_0": row("5", "colour")}, r"v1_0: capability \['colour'\] is none of rec, ocr"),
        ({"v1_0": {**row(), "capability": "ocr"}}, r"v1_0: capability \['ocr'\] is none of"),
        ({"v1_0": {**row(), "capability": []}}, r"v1_0: capability \[\] is none of"),
        ({"v1_0": row(imagename="v1_9.png")}, "1 of 1 images are missing, the first is 'images/v1_9.png'"),
    ],
)
def test_a_file_that_is_malformed_is_named(data, content, message):
    (data / "mmvet" / "mm-vet" / "mm-vet.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=message):
        load(["mmvet"], data)
