"""From an input's answers to pairs: what is right, what is wrong, and what is neither."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
from stage_kit import generated

PAIR = {"policy": "correctness", "weights": {"correctness": 1}, "margin": 0.5, "max_length_ratio": 9}


def pairs(folder: Path, source: dict[str, Any], *texts: str) -> dict[str, list[tuple[str, str] | str]]:
    """Prompt -> its pairs as (chosen, rejected), or why there is none."""
    sample = {"model": "canned", "n": 12, "engine": {"kind": "scripted", "texts": list(texts)}}
    run = generated(folder, source=source, sample=sample, pair=PAIR)
    questions = {row["id"]: row["prompt"][-1]["content"] for row in run.table("source").to_pylist()}
    sampled = {
        row["id"]: [candidate["text"] for candidate in row["candidates"]] for row in run.table("sample").to_pylist()
    }
    outcomes: dict[str, list[tuple[str, str] | str]] = {}
    for row in run.table("pair").to_pylist():
        candidates = sampled[row["id"]]
        made = row["reason"] or (candidates[row["chosen"]], candidates[row["rejected"]])
        outcomes.setdefault(questions[row["id"]], []).append(made)
    return outcomes


def table(folder: Path, **answers: Any) -> dict[str, Any]:
    lines = [{"images": [], "prompt": prompt, "answer": answer} for prompt, answer in answers.items()]
    (folder / "rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return {"kind": "jsonl", "path": str(folder / "rows.jsonl")}


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("-5", "5"), ("C++", "C"), ("C#", "C"), ("50%", "50"), ("$5", "5"), ("2-3", "2*3"), ("1/2", "1.2")],
)
def test_answers_that_a_sign_tells_apart_are_a_pair(right: str, wrong: str, tmp_path: Path) -> None:
    for answer, other in ((right, wrong), (wrong, right)):
        assert pairs(tmp_path / answer.replace("/", ":"), _made(tmp_path, answer), right, wrong) == {
            "q": [(answer, other)]
        }


def _made(folder: Path, answer: str) -> dict[str, Any]:
    return table(folder, q=answer)


def test_the_same_answer_in_two_forms_is_no_pair(tmp_path: Path) -> None:
    assert pairs(tmp_path, table(tmp_path, q="caf\u00e9"), "caf\u00e9", "cafe\u0301", "CAF\u00c9.") == {
        "q": ["identical"]
    }


def test_answers_of_every_type(tmp_path: Path) -> None:
    source = table(tmp_path, several=["one", "1"], truth=True, whole=2.0, unknown=float("nan"), empty="")
    made_pairs = pairs(tmp_path, source, "1", "2", "Yes", "No")
    assert set(made_pairs["several"]) == {("1", "2")} and set(made_pairs["whole"]) == {("2", "1")}
    assert made_pairs["truth"] == [("Yes", "No")]
    assert made_pairs["unknown"] == made_pairs["empty"] == ["no_valid_candidate"]


def test_a_class_label(tmp_path: Path) -> None:
    features = datasets.Features(
        {
            "image": datasets.List(datasets.Image()),
            "question": datasets.Value("string"),
            "label": datasets.ClassLabel(names=["yes", "no"]),
        }
    )
    values = {"image": [[], []], "question": ["a", "b"], "label": ["yes", "no"]}
    datasets.Dataset.from_dict(values, features=features).save_to_disk(tmp_path / "hf")
    columns = {"prompt": "question", "answer": "label"}
    made_pairs = pairs(tmp_path, {"kind": "huggingface", "path": str(tmp_path / "hf"), "columns": columns}, "Yes", "No")
    assert made_pairs == {"a": [("Yes", "No")], "b": [("No", "Yes")]}


def test_in_other_words_it_is_the_same_answer_and_never_the_wrong_one(tmp_path: Path) -> None:
    asked = "Which animal is this?"
    source = table(tmp_path, **{"count": "3", asked: "cat"})
    made_pairs = pairs(
        tmp_path, source, "There are three dogs.", "A cat.", "Two.", "A kitten.", "I cannot tell.", "A dog."
    )
    assert set(made_pairs["count"]) == {("There are three dogs.", "Two.")}
    assert set(made_pairs[asked]) == {("A cat.", "A dog.")}


def test_texts_that_nobody_can_see_are_no_candidates(tmp_path: Path) -> None:
    assert pairs(tmp_path, table(tmp_path, q="yes"), "\u200b", "\ufeff", "\u00ad") == {"q": ["no_valid_candidate"]}
