"""Good answers of the built-in world, as a file for the SFT stream."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet
from typer.testing import CliRunner

from pipeline.scenes import grammar, prompts, raster
from pipeline.scenes.models_build import good_answers
from pipeline.scenes.models_build.curriculum import TRAIN_SEED
from pipeline.scenes.scene_words import scenes
from pipeline.scenes.world import scene
from reward.text.fact_findings import by_facts, hallucinations
from reward.text.noun_phrases import read
from training.config.evaluation import EvaluateConfig


def test_every_answer_is_true_and_names_all_that_is_in_its_picture() -> None:
    for index, row in enumerate(good_answers.rows(30)):
        shown = scene(good_answers.SEED, index)
        (picture,), (question,), (reply,) = row["images"], row["prompt"], row["chosen"]
        assert picture["bytes"] == raster.png(shown) and question["content"] in grammar.DESCRIBE
        assert not hallucinations(by_facts(reply["content"], prompts.facts(shown), scenes()))
        assert {phrase.name for phrase in read(reply["content"], scenes())} == shown.names
        assert (question["role"], reply["role"]) == ("user", "assistant")


def test_rows_are_the_same_every_time_fewer_are_among_more_and_another_seed_has_others() -> None:
    assert list(good_answers.rows(3)) == list(good_answers.rows(5))[:3] != list(good_answers.rows(3, seed=1))
    assert good_answers.SEED not in (TRAIN_SEED, EvaluateConfig().seed)


def test_the_command_writes_a_file(tmp_path: Path) -> None:
    out = tmp_path / "new" / "good.parquet"
    result = CliRunner().invoke(good_answers.app, [str(out), "--scenes", "2"])
    assert result.exit_code == 0 and "2 descriptions" in result.stdout
    assert pyarrow.parquet.read_table(out).to_pylist() == list(good_answers.rows(2))


def test_a_file_of_another_kind_is_refused_with_the_name_that_would_do(tmp_path: Path) -> None:
    result = CliRunner().invoke(good_answers.app, [str(tmp_path / "good.json")])
    assert result.exit_code == 2 and "good.parquet" in result.output and not list(tmp_path.iterdir())
