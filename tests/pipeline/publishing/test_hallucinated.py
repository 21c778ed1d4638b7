"""What is marked in texts is what the run itself went by."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import fake_run
import pyarrow as pa
import pytest

from pipeline.base.tables import DETECTED, OK, PAIRS, SCORES, VERDICTS
from pipeline.publishing import hallucinated, report
from pipeline.publishing.hallucinated import RECIPE, Truth, of_run
from pipeline.running import prompt_rows
from pipeline.running.store import Run, make_record
from pipeline.scoring.config import Score
from pipeline.scoring.scorers import open_scorers

TEXTS = ("A red sun and a zeppelin.", "A blue sun.")


@pytest.fixture
def run(tmp_path) -> Run:
    """One description of a red sun with two texts, nothing scored yet."""
    run = Run(fake_run.make(tmp_path / "run", prompts_count=4, shards=1))
    rows = run.read("source", 0).to_pylist()[-1:]
    rows[0]["id"] = "a"
    rows[0]["facts"] |= {"objects": [{"name": "sun", "count": 1, "attributes": ["red"], "boxes": []}], "answer": None}
    run.write("source", 0, pa.Table.from_pylist(rows, schema=run.read("source", 0).schema.remove_metadata()))
    sample = run.read("sample", 0)
    row = sample.to_pylist()[-1]
    row |= {"id": "a", "candidates": [{**row["candidates"][0], "text": text} for text in TEXTS]}
    run.write("sample", 0, pa.Table.from_pylist([row], schema=sample.schema.remove_metadata()))
    pair = {"id": "a", "chosen": 1, "rejected": 0, "policy": "best_vs_worst", "margin": 1.0, **OK}
    run.write("pair", 0, pa.Table.from_pylist([pair], schema=PAIRS))
    run.clear("score")
    return run


def score(run: Run, **versions: str) -> None:
    scores = [{"name": name.replace("_", "."), "version": version, "values": [0.0, 1.0]}
              for name, version in versions.items()]  # fmt: skip
    run.write("score", 0, pa.Table.from_pylist([{"id": "a", "scores": scores, **OK}], schema=SCORES))


def keep(run: Run, **recipe: Any) -> None:
    (run.path / RECIPE).write_text(json.dumps(recipe))


def marked(run: Run, truth: Truth | None = None) -> list[list[str]]:
    row = prompt_rows.read(run, 0, ["a"])["a"]
    marks = (truth or of_run(run)).marks(row)
    return [[text[mark.start : mark.end] for mark in of_text] for text, of_text in zip(TEXTS, marks, strict=True)]


def words(tmp_path, mapping: dict[str, str]) -> str:
    path = tmp_path / "words.json"
    path.write_text(json.dumps(mapping))
    return str(path)


def test_a_vocabulary_of_the_users_own_marks(run, tmp_path):
    options = {
        "scorers": ["objects"],
        "objects": {"vocabulary": words(tmp_path, {"zeppelin": "airship", "sun": "sun"})},
    }
    (scorer,) = open_scorers(Score(**options))
    score(run, objects_hallucinated=scorer.version)
    keep(run, score=options)
    assert marked(run) == [["zeppelin"], []]
    text = report.write(run).read_text()
    assert '<mark title="airship is not there">zeppelin</mark>' in text
    assert "name an object that is not in the image, by its facts and the vocabulary words" in text


def test_a_file_of_words_is_found_from_another_folder_than_that_of_the_run(run, tmp_path, monkeypatch):
    words(tmp_path, {"zeppelin": "airship", "sun": "sun"})
    options = {"scorers": ["objects"], "objects": {"vocabulary": "words.json"}}
    monkeypatch.chdir(tmp_path)
    (scorer,) = open_scorers(Score(**options))
    score(run, objects_hallucinated=scorer.version)
    (tmp_path / "runs").mkdir()
    moved = Run(run.path.rename(tmp_path / "runs" / "mine"))
    keep(moved, name="mine", output_dir="runs", score=options)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert marked(moved) == [["zeppelin"], []]
    keep(moved, name="mine", output_dir=str(tmp_path / "runs"), score=options)
    assert marked(moved) == [[], []] and "words.json" in of_run(moved).legend


def test_a_vocabulary_that_was_changed_since_marks_nothing_and_the_legend_says_so(run, tmp_path):
    options = {
        "scorers": ["objects"],
        "objects": {"vocabulary": words(tmp_path, {"zeppelin": "airship", "sun": "sun"})},
    }
    (scorer,) = open_scorers(Score(**options))
    score(run, objects_hallucinated=scorer.version)
    keep(run, score=options)
    words(tmp_path, {"sun": "sun", "red": "red"})
    assert marked(run) == [[], []]
    text = report.write(run).read_text()
    assert "No word is marked: What objects went by is not what is there now" in text and "<mark" not in text
    (tmp_path / "words.json").unlink()
    assert "cannot use" in of_run(run).legend


def test_detections_are_the_truth_where_they_were(run, tmp_path):
    path = run.read("source", 0)["images"][0][0]["path"].as_py()
    detections = [{"image": path, "detections": [{"label": "zeppelin", "score": 0.9, "box": []}]}]
    (tmp_path / "found.json").write_text(json.dumps(detections))
    vocabulary = words(tmp_path, {"zeppelin": "zeppelin", "sun": "sun"})
    objects = {"vocabulary": vocabulary, "detections": str(tmp_path / "found.json"), "always": True,
               "classes": ["zeppelin", "sun"]}  # fmt: skip
    options = {"scorers": ["objects"], "objects": objects}
    (scorer,) = open_scorers(Score(**options))
    score(run, objects_hallucinated=scorer.version)
    keep(run, score=options)
    assert marked(run) == [["sun"], ["sun"]]
    assert "facts or detections" in of_run(run).legend


def test_facts_mark_colours_too(run):
    (scorer,) = open_scorers(Score(scorers=("facts",)))
    score(run, facts_wrong=scorer.version)
    assert marked(run) == [[], ["blue"]]  # zeppelin is no word of the scenes


def test_verdicts_on_claims_mark_what_was_denied(run):
    score(run, claims_true="anything")
    verdicts = [{"candidate": 0, "other": None, "question": claim, "answer": "", "p_yes": value, "error": None}
                for claim, value in (("a red sun", 0.9), ("a zeppelin", 0.1))]  # fmt: skip
    run.write("ask-claims", 0, pa.Table.from_pylist([{"id": "a", "verdicts": verdicts, **OK}], schema=VERDICTS))
    assert marked(run) == [["a zeppelin"], []]


def test_what_was_found_before_rewriting_marks_the_texts_it_was_found_in(run):
    finding = {"candidate": 1, "sentence": 0, "start": 2, "end": 6, "verdict": "hallucination", "kind": "attribute",
               "words": "blue", "reason": "it is red", "by": "judge"}  # fmt: skip
    moved = {**finding, "candidate": 0, "words": "other"}
    record = make_record("detect", 1, {"by": "judge"}, {})
    run.save(replace(record, finished=True))
    table = pa.Table.from_pylist([{"id": "a", "findings": [finding, moved], "refused": [], **OK}], schema=DETECTED)
    run.write("detect", 3, table, by=record)  # in another shard than the prompt
    score(run, clip_cosine="1")
    assert marked(run) == [[], ["blue"]]
    assert "by a judge" in of_run(run).legend


def test_a_run_that_asks_nobody_what_is_true_says_so(run):
    score(run, clip_cosine="1")
    assert of_run(run).legend == Truth().legend
    assert "No word is marked: nothing in this run says" in report.write(run).read_text()


def test_a_run_that_is_not_scored_yet_is_marked_by_its_recipe(run):
    assert of_run(run).finders == ()
    keep(run, score={"scorers": ["objects"], "objects": {"vocabulary": "coco"}})
    assert "vocabulary coco" in of_run(run).legend


def test_what_the_scorer_counted_is_what_is_marked(tmp_path):
    """Over a whole run, word for word."""
    run = Run(fake_run.make(tmp_path / "run", prompts_count=60))
    truth, seen = of_run(run), 0
    for shard in run.shards("source"):
        ids = run.read("source", shard)["id"].to_pylist()
        for row in prompt_rows.read(run, shard, ids).values():
            for marks, count in zip(truth.marks(row), row.scores.get("objects.hallucinated", ()), strict=False):
                assert len(marks) == (count or 0)
                seen += len(marks)
    assert seen > 20
    assert hallucinated.TELLING[0] in truth.finders[0].about or "vocabulary scenes" in truth.legend
