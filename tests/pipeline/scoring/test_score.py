from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from stage_kit import candidate, prompt_row

from pipeline.base.errors import ConfigError, EngineError
from pipeline.base.tables import CANDIDATES, OK, PROMPTS, error_status
from pipeline.scoring.config import Score
from pipeline.scoring.plugged import OURS, ours
from pipeline.scoring.scorers import open_scorers, vocabulary
from pipeline.scoring.stage import ModelScoreStage, ScoreStage
from reward.scorers.given import GivenScorer

FACTS = {"objects": [{"name": "sun"}]}
SPEC = Score(scorers=("objects", "correctness"))


def tables(*prompts: dict[str, Any]) -> dict[str, pa.Table]:
    rows = [
        {"id": p["id"], "candidates": [candidate("A sun."), candidate("A sun and a cup.")], **OK}
        if p["status"] == "ok"
        else {"id": p["id"], **error_status(p["error_type"], p["error"])}
        for p in prompts
    ]
    return {
        "source": pa.Table.from_pylist(list(prompts), schema=PROMPTS),
        "sample": pa.Table.from_pylist(rows, schema=CANDIDATES),
    }


class Breaks:
    """A scorer that cannot stand prompt ``b``."""

    name, version = "breaks", "1"

    def score(self, rows: Any) -> Any:
        if any(row["id"] == "b" for row in rows):
            raise ValueError("cannot stand it")
        return {"breaks": [[1.0] * len(row["candidates"]) for row in rows]}


def test_values_are_raw_and_aligned_to_the_candidates() -> None:
    (row,) = ScoreStage(SPEC).process(None, tables(prompt_row("a", facts=FACTS))).to_pylist()
    scores = {score["name"]: score for score in row["scores"]}
    assert scores["objects.hallucinated"]["values"] == [0.0, 1.0]
    assert scores["objects.hallucinated"]["version"].startswith("4:scenes@")
    assert scores["correctness"]["values"] == [None, None]


def test_a_failed_row_stays_failed_and_the_others_are_scored() -> None:
    broken = prompt_row("b", **error_status("unreadable_image", "why"))
    rows = ScoreStage(SPEC).process(None, tables(broken, prompt_row("a", facts=FACTS))).to_pylist()
    assert [row["id"] for row in rows] == ["b", "a"]
    b, a = rows
    assert (a["status"], b["status"], b["error_type"], b["error"]) == ("ok", "failed", "unreadable_image", "why")


def test_a_row_that_breaks_a_scorer_lacks_its_scores_alone_and_says_why() -> None:
    stage = ScoreStage(SPEC)
    table = stage.process([Breaks(), *open_scorers(SPEC)], tables(*(prompt_row(i, facts=FACTS) for i in "abc")))
    rows = table.to_pylist()
    assert [row["status"] for row in rows] == ["ok"] * 3
    assert [row["scores"][0]["name"] for row in rows] == ["breaks", "objects.mentions", "breaks"]
    assert rows[1]["scores"] == rows[0]["scores"][1:]
    why = {"scorer": "breaks", "failed": True, "error_type": "ValueError", "error": "cannot stand it"}
    assert [row["unknown"] for row in rows] == [None, [why], None]
    assert stage.extras(table) == {"breaks.ValueError": 1}


def test_a_row_that_breaks_the_scorer_of_a_stage_fails_in_that_stage() -> None:
    stage = ModelScoreStage(Score(scorers=("clip",)))
    rows = stage.process([Breaks()], tables(*(prompt_row(i) for i in "abc"))).to_pylist()
    assert [row["error_type"] for row in rows] == [None, "ValueError", None]


class Odd:
    """Says of each candidate what no number is, and flags one."""

    name, version = "odd", "1"

    def score(self, rows: Any) -> Any:
        return {"odd.value": [[float("nan"), 1.0], [float("-inf"), None], [0.5, 0.25]]}

    def flags(self, rows: Any) -> Any:
        return {"odd.flag": [[0.0, 1.0]] * 3}


def test_what_is_no_finite_number_is_null_and_not_known() -> None:
    rows = ScoreStage(SPEC).process([Odd()], tables(*(prompt_row(i) for i in "abc"))).to_pylist()
    by_name = [{score["name"]: score["values"] for score in row["scores"]} for row in rows]
    assert [row["odd.value"] for row in by_name] == [[None, 1.0], [None, None], [0.5, 0.25]]
    assert [row["odd.flag"] for row in by_name] == [[0.0, 1.0]] * 3
    assert [[note["error_type"] for note in row["unknown"] or ()] for row in rows] == [["not_finite"]] * 2 + [[]]


def test_an_answer_that_cannot_be_read_is_not_known_and_one_without_a_question_is() -> None:
    question = prompt_row("a", facts={**FACTS, "question_type": "existence", "answer": "yes"})
    given = tables(question, prompt_row("b", facts=FACTS))
    a, b = ScoreStage(Score(scorers=("correctness",))).process(None, given).to_pylist()
    assert [score["values"] for score in a["scores"]] == [[None, None], [1.0, 1.0]]
    assert [(note["scorer"], note["failed"], note["error_type"]) for note in a["unknown"]] == [
        ("correctness", False, "unreadable")
    ]
    assert b["unknown"] is None


class Remembers:
    """A scorer that is lost if it is called before it has answered, as a tokenizer is that pads for another call."""

    name, version = "remembers", "1"
    busy = False

    def score(self, rows: Any) -> Any:
        if self.busy:
            raise ValueError("called while it was busy")
        self.busy = True
        time.sleep(0.05)
        self.busy = False
        return {"remembers": [[1.0] * len(row["candidates"]) for row in rows]}


def test_two_shards_at_a_time_call_a_scorer_one_after_the_other() -> None:
    scorer = Remembers()
    with ThreadPoolExecutor(2) as both:
        tasks = [both.submit(ScoreStage(SPEC).process, [scorer], tables(prompt_row(id))) for id in "abcd"]
        rows = [row for task in tasks for row in task.result().to_pylist()]
    assert [row["status"] for row in rows] == ["ok"] * 4


def test_formulas_need_no_workers_and_models_do() -> None:
    assert ScoreStage(SPEC).worker is None
    clip = ModelScoreStage(Score(scorers=("clip",)))
    assert clip.name == "score-clip" and clip.worker == ModelScoreStage(Score(scorers=("clip",))).worker


def test_a_vocabulary_counts_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "coco.json"
    path.write_text(json.dumps({"dog": "dog", "dogs": "dog"}))
    before = vocabulary(str(path))
    path.write_text(json.dumps({"dog": "dog"}))
    assert before.objects == {"dog"} and vocabulary(str(path)).version != before.version


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "Expecting value"),
        ("[1]", "is a list"),
        ("{}", "names no object"),
        ('{"a": "x", "A": "y"}', "'A' names both 'x' and 'y'"),
        ('{"a": "x", "a": "y"}', "'a' names both 'x' and 'y'"),
        ('{"dog": ["dog", "dogs"]}', r"'dog' stands for \['dog', 'dogs'\]"),
        ('{"dog": {}}', "'dog' stands for {}"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_a_wrong_vocabulary_is_an_error_of_the_recipe(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "v.json"
    path.write_text(text)
    with pytest.raises(
        ConfigError, match=rf"(?s)score\.objects\.vocabulary.*{says}.*\{{\"surface form\": \"object\"\}}"
    ):
        vocabulary(str(path))


def test_a_vocabulary_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"(?s)'cocco'.*No such file.*`scenes`, `coco`"):
        vocabulary("cocco")
    (tmp_path / "v.json").write_text('\ufeff{"dog": "dog"}', encoding="utf-8")
    assert vocabulary(str(tmp_path / "v.json")).objects == {"dog"}


def test_a_missing_clip_is_found_before_the_run() -> None:
    with pytest.raises(EngineError, match="no model folder"):
        open_scorers(Score.model_validate({"scorers": ["clip"], "clip": {"model": "./nowhere/clip"}}))
    with pytest.raises(ConfigError, match="pretrained"):
        open_scorers(Score.model_validate({"scorers": ["clip"], "clip": {"model": "ViT-B-32"}}))


def test_rows_are_joined_by_id_not_by_place() -> None:
    given = tables(*(prompt_row(id, facts=facts) for id, facts in (("a", FACTS), ("b", None), ("c", FACTS))))
    straight = ScoreStage(SPEC).process(None, given).to_pylist()
    turned = {**given, "source": given["source"].take([2, 0, 1])}
    assert ScoreStage(SPEC).process(None, turned).to_pylist() == straight
    assert [row["scores"][0]["values"] for row in straight] == [[1.0, 2.0], [None, None], [1.0, 2.0]]


class Looks:
    """A scorer of rows: how many bytes the images have."""

    name, version = "looks", "1"

    def score(self, rows: Any) -> Any:
        return {"looks": [[float(sum(map(len, row["images"])))] * len(row["candidates"]) for row in rows]}


def test_scorers_of_rows_and_of_columns_go_together_and_images_may_lie_in_files(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"12345")
    there, gone = ([{"bytes": None, "path": str(tmp_path / name)}] for name in ("a.png", "b.png"))
    given = tables(prompt_row("a", facts=FACTS, images=there), prompt_row("b", images=gone))
    a, b = ScoreStage(SPEC).process([Looks(), *open_scorers(SPEC)], given).to_pylist()
    assert [score["name"] for score in a["scores"]][:2] == ["looks", "objects.mentions"]
    assert [score["values"] for score in a["scores"]][:2] == [[5.0, 5.0], [1.0, 2.0]]
    assert b["status"] == "ok" and [score["name"] for score in b["scores"]][:1] == ["objects.mentions"]
    assert [(note["scorer"], note["failed"], note["error_type"]) for note in b["unknown"]] == [
        ("looks", True, "FileNotFoundError")
    ]


def test_a_candidate_without_a_text_fails_its_row_alone() -> None:
    given = tables(prompt_row("a", facts=FACTS), prompt_row("b", facts=FACTS))
    rows = given["sample"].to_pylist()
    rows[0]["candidates"][1]["text"] = None
    given["sample"] = pa.Table.from_pylist(rows, schema=CANDIDATES)
    assert [row["status"] for row in ScoreStage(SPEC).process(None, given).to_pylist()] == ["failed", "ok"]


def test_a_shard_in_which_all_failed_and_an_empty_one() -> None:
    broken = prompt_row("b", **error_status("unreadable_image", "why"))
    assert ScoreStage(SPEC).process(None, tables(broken)).to_pylist()[0]["error_type"] == "unreadable_image"
    assert ScoreStage(SPEC).process(None, tables()).num_rows == 0


def test_a_scorer_of_ours_is_its_file_and_a_line_in_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OURS, "preferred", "reward.scorers.given:GivenScorer")
    spec = Score(scorers=("correctness",), options={"correctness": {"parser": "official"}})
    assert [scorer.version for scorer in open_scorers(spec)] == ["4:official"]
    assert open_scorers(spec)[0].score([{"facts": {"answer": "no"}, "candidates": [{"text": "None."}]}])
    assert isinstance(ours("preferred", {}), GivenScorer)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"correctness": {"parsr": "official"}}, "did you mean parser?"),
        ({"correctness": {"parser": "pope"}}, "parser='pope' is unknown"),
        ({"objects": {"vocabulary": "coco"}}, "the options of objects are in the group objects"),
        ({"given": {}}, "options.given is of no scorer"),
    ],
)
def test_a_wrong_option_of_a_scorer_of_ours_is_an_error_of_the_recipe(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        Score(scorers=("objects", "correctness"), options=options)
