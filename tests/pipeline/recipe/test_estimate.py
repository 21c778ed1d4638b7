"""What is left to do is told before it is done: what is not known is no 0."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml
from PIL import Image
from stage_kit import TEXTS, recipe
from typer.testing import CliRunner

from pipeline import run as module
from pipeline.recipe.estimate import Book, Estimate, Speed, estimates, measured_speed
from pipeline.recipe.load import load_recipe
from pipeline.recipe.plan import Plan
from pipeline.running.store import Run, make_record
from training import job
from training.config.recipe import WholeRecipe

ENGINE = {"kind": "scripted", "texts": TEXTS}
SAMPLE = {"model": "canned", "n": 4, "temperature": [0.5, 1.0], "max_tokens": 20, "engine": ENGINE}
JUDGE = {"scorers": ["judge"], "judge": {"model": "j", "engine": ENGINE, "max_tokens": 8, "criteria": ["coherence"]}}


def left(tmp_path: Path, **changes: Any) -> dict[str, Estimate]:
    plan = Plan(recipe(tmp_path, **{"sample": SAMPLE, **changes}))
    run = Run(plan.recipe.run_dir)
    return {estimate.stage: estimate for estimate in estimates(Book(plan, run, plan.outlook(run)))}


def asked(estimate: Estimate) -> tuple[int | None, ...]:
    """Rows, requests, answers, tokens and images."""
    assert estimate.asks is not None
    asks = estimate.asks
    return estimate.rows, asks.requests, asks.answers, asks.tokens, asks.images


def test_a_source_that_is_counted_by_its_recipe(tmp_path: Path) -> None:
    sample = left(tmp_path, source={"scenes": 10, "questions_per_scene": 1})["sample"]
    assert asked(sample) == (20, 40, 160, 3200, 40)
    assert sample.seconds is None and sample.line.endswith("time ?")
    assert left(tmp_path, source={"scenes": 10, "limit": 3})["sample"].rows == 3


def test_what_nobody_has_counted_is_not_known(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(b"")
    source = {"kind": "webdataset", "path": str(tmp_path / "a.tar")}
    sample = left(tmp_path, source=source)["sample"]
    assert asked(sample) == (None,) * 5 and sample.seconds is None and sample.size is None
    assert " 0 " not in sample.line and sample.line.startswith("sample: ? rows, ? requests with ? images")
    assert asked(left(tmp_path, source={**source, "limit": 5})["sample"])[2] == 40


def test_the_rows_of_files_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"image": "a.png", "prompt": "Describe the image."}\n' * 7)
    source = {"kind": "jsonl", "path": str(tmp_path / "a.jsonl")}
    # Which of them have images nobody has looked at yet.
    assert asked(left(tmp_path, source=source)["sample"]) == (7, 14, 56, 1120, None)
    assert left(tmp_path, source={**source, "limit": 5})["sample"].rows == 5


def test_the_calls_of_a_judge(tmp_path: Path) -> None:
    pair = {"weights": {"judge.coherence": 1}}
    judge = left(tmp_path, score=JUDGE, pair=pair, source={"scenes": 10})["ask-judge"]
    assert asked(judge)[1] == 80 and asked(judge)[3] == 640
    pairwise = {**JUDGE, "judge": {**JUDGE["judge"], "mode": "pairwise"}}  # type: ignore[dict-item]
    compared = left(tmp_path, score=pairwise, pair={"weights": {"judge.wins": 1}}, source={"scenes": 10})["ask-judge"]
    assert asked(compared)[1] == 10 * 2 * 28


def test_an_evaluation_asks_no_more_than_was_said(tmp_path: Path) -> None:
    made = load_recipe("quickstart", ["evaluate.scenes=20", "evaluate.per_image=2"], WholeRecipe)
    held = job.evaluation_of(made)
    assert held is not None and held.most == 20 * 13
    assert 20 < sum(1 for _ in held.build(held.config)) <= held.most
    plan = Plan(recipe(tmp_path, sample=SAMPLE), held)
    run = Run(plan.recipe.run_dir)
    lines = {estimate.stage: estimate for estimate in estimates(Book(plan, run, plan.outlook(run)))}
    assert (asked(lines["eval-before"])[1], asked(lines["eval-before"])[4]) == (260, 260)


def test_a_speed_is_of_the_same_options_and_says_which_run_had_it(tmp_path: Path) -> None:
    run = Run(tmp_path / "mine")
    record = replace(make_record("sample", 2, {"n": 4, "seed": 1}, {}), rows=100, seconds=50.0, finished=True)
    Run(tmp_path / "other").save(record)
    assert measured_speed(run, "sample", {"n": 4, "seed": 2}) == Speed(2.0, "other")
    assert measured_speed(run, "sample", {"n": 5, "seed": 1}) is None
    run.save(replace(record, rows=200))
    assert measured_speed(run, "sample", {"n": 4, "seed": 1}) == Speed(4.0, "this run")
    (tmp_path / "broken" / "sample").mkdir(parents=True)
    (tmp_path / "broken" / "sample" / "stage.json").write_text("{")
    assert measured_speed(Run(tmp_path / "new"), "sample", {"n": 4}) == Speed(4.0, "mine")


def test_the_plan_says_what_is_left_and_an_alike_run_how_long_it_takes(tmp_path: Path, ray_cluster: None) -> None:
    train = {"model": "scenes-vlm", "epochs": 2, "batch_size": 1, "micro_batch_size": 1}
    made = recipe(tmp_path, name="first", score={"scorers": ["objects", "correctness"]}, train=train)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(made.model_dump(mode="json")))

    def invoke(*arguments: str) -> str:
        result = CliRunner().invoke(module.app, [str(path), *arguments])
        assert result.exit_code == 0, result.output
        return result.output

    def left_to_do(*arguments: str) -> dict[str, str]:
        lines = invoke("--plan", *arguments).partition("left to do")[2].splitlines()[1:]
        return dict(line.strip().split(": ", 1) for line in lines if ": " in line)

    assert left_to_do()["sample"].startswith("20 rows, 20 requests with 20 images")
    assert left_to_do()["train"].startswith("? pairs x 2 epochs: ? optimiser steps; time ?")
    invoke("--stages", "source,sample,score,pair,publish")
    pairs = json.loads((tmp_path / "first" / "summary.json").read_text())["pairs"]
    left = left_to_do()
    assert left["train"].startswith(f"{pairs} pairs x 2 epochs: {2 * pairs} optimiser steps; time ?; ")
    assert set(left) == {"train", "time", "disk"} and left["time"].startswith("?")
    second = left_to_do("name=second", "seed=3")
    assert "rows/s (first); " in second["sample"] and second["sample"].endswith("MB")
    assert "and that of publish, train (?)" in second["time"]


def test_every_prompt_of_a_folder_has_an_image(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for name, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (8, 8), colour).save(images / f"{name}.png")
    source = {"kind": "folder", "path": str(images), "prompts": ["What is it?", "Where is it?"]}
    assert asked(left(tmp_path, source=source)["sample"]) == (4, 8, 32, 640, 8)
