import json
from collections import Counter

import pyarrow as pa
import pytest
from pydantic import ValidationError

from pipeline.base.tables import PROMPTS
from training.config.evaluation import EvaluateConfig
from training.evaluation import scenes


@pytest.fixture(scope="module")
def rows():
    return list(scenes.build({"scenes": 40}))


def test_one_description_per_scene_and_distinct_questions(rows):
    described = [row for row in rows if row["source"] == "describe"]
    assert len(described) == len({row["images"][0]["bytes"] for row in described}) == 40
    keys = [(row["images"][0]["bytes"], row["prompt"][0]["content"]) for row in rows]
    assert len(set(keys)) == len(keys)


def test_every_split_is_balanced_and_positives_are_asked_once_for_all(rows):
    polls = [row for row in rows if row["source"].startswith("pope:")]
    counts = Counter(
        (s, row["facts"]["answer"]) for row in polls for s in row["source"].removeprefix("pope:").split(",")
    )
    assert {split for split, _ in counts} == {"random", "popular", "adversarial"}
    assert len(set(counts.values())) == 1
    assert {row["source"] for row in polls if row["facts"]["answer"] == "yes"} == {"pope:random,popular,adversarial"}


def test_answers_agree_with_the_scene(rows):
    for row in rows:
        facts = row["facts"]
        names = {thing["name"] for thing in facts["objects"]}
        if row["source"] == "describe":
            assert facts["answer"] is None
            continue
        assert facts["question_type"] == "existence"
        name = row["prompt"][0]["content"].removesuffix(" in the image?").split(" ", 3)[3]
        assert (name in names) == (facts["answer"] == "yes")


def test_rows_fit_the_prompts_table_and_repeat_exactly(rows):
    status = {"id": "x", "status": "ok", "error_type": None, "error": None}
    table = pa.Table.from_pylist([{**row, **status} for row in rows], schema=PROMPTS)
    assert table.num_rows == len(rows)
    assert list(scenes.build({"scenes": 40})) == rows


def test_the_stream_follows_the_seed(rows):
    other = {row["images"][0]["bytes"] for row in scenes.build({"scenes": 40, "seed": 1})}
    assert not other & {row["images"][0]["bytes"] for row in rows}


def test_config_is_checked():
    assert EvaluateConfig().seed == 900_001 and EvaluateConfig().scenes == 500
    with pytest.raises(ValidationError, match="Extra inputs"):
        next(iter(scenes.build({"scenes": 3, "secnes": 3})))
    json.dumps(EvaluateConfig().model_dump())
