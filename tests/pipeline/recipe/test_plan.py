"""Which stages a recipe comes to, with one model and with several, and what the command line can be asked of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from stage_kit import TEXTS, pending, png, recipe
from typer.testing import CliRunner

from pipeline import run as module
from pipeline.base.errors import ConfigError
from pipeline.recipe import preview
from pipeline.recipe.plan import Held, Plan, stage_groups
from pipeline.running.store import Run
from pipeline.sources.config import ScenesSource

ENGINE = {"kind": "scripted", "texts": TEXTS}
TWO: dict[str, Any] = {
    "n": 3,
    "engine": ENGINE,
    "models": [
        {"model": "org/big", "revision": "abc", "n": 2},
        {"model": "small", "temperature": [0.5, 1.0], "system_prompt": "Be brief."},
    ],
}
HELD = Held(lambda _: iter(()), {}, 16)
runner = CliRunner()


def names(plan: Plan) -> list[str]:
    return [stage.name for stage in plan.generation()]


def write(tmp: Path, **changes: Any) -> Path:
    values = recipe(tmp, score={"scorers": ["objects", "correctness"]}, **changes).model_dump(mode="json")
    path = tmp / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def invoke(*arguments: object) -> str:
    result = runner.invoke(module.app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_one_model_is_one_stage(tmp_path: Path) -> None:
    assert names(Plan(recipe(tmp_path))) == ["source", "sample", "score", "pair"]


def test_several_models_are_a_stage_each_and_one_that_gathers_them(tmp_path: Path) -> None:
    plan = Plan(recipe(tmp_path, sample=TWO), HELD)
    first, second = "sample-org-big-abc", "sample-small"
    assert names(plan) == ["source", first, "eval-source", "eval-before", second, "sample", "score", "pair"]
    big, small = (stage for stage in plan.generation() if stage.name in (first, second))
    assert (big.spec.n, small.spec.n, small.spec.temperatures) == (2, 3, (0.5, 1.0))  # type: ignore[union-attr]
    assert (big.on_policy, small.on_policy) == (True, False)  # type: ignore[union-attr]


def test_the_model_to_be_trained_is_the_one_that_is_evaluated_and_on_policy(tmp_path: Path) -> None:
    plan = Plan(recipe(tmp_path, sample=TWO, train={"model": "small"}), HELD)
    assert [stage.on_policy for stage in plan.generation() if stage.name.startswith("sample-")] == [False, True]  # type: ignore[union-attr]
    assert names(plan).index("eval-before") == names(plan).index("sample-small") + 2
    assert plan.answers("eval-before").spec.model == "small"
    other = Plan(recipe(tmp_path, sample=TWO, train={"model": "third"}), HELD)
    assert other.answers("eval-before").spec.model == "third" and "eval-before" in names(other)


@pytest.mark.parametrize(("given", "reason"), [("scor", "no stage scor"), ("", "named"), ("source,nothing", "nothing")])
def test_a_stage_that_does_not_exist_is_named(given: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        stage_groups(given)


@pytest.mark.parametrize(
    ("sample", "reason"),
    [
        ({"n": 2, "models": [{"model": "a"}, {"model": "a"}]}, "names one twice"),
        ({"models": [{"model": "a", "temprature": 1}]}, r"did you mean sample.models\[0\].temperature"),
        ({"model": "a", "temperature": [0.0, 1.0], "n": 2}, "greedy"),
        ({"model": "a", "temperature": [1.0, 1.0]}, "names one twice"),
        ({"models": [{"model": "a", "models": []}]}, "one list"),
        ({"model": "a", "engine": {"kind": "openai", "base_url": "http://me:pw@host/v1"}}, "must not hold a user"),
        ({"model": "a", "engine": {"kind": "openai", "base_url": "host:80"}}, "must be like"),
    ],
)
def test_what_is_wrong_with_models_is_said(tmp_path: Path, sample: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        recipe(tmp_path, sample=sample)


def test_two_models_give_one_table_of_candidates(tmp_path: Path, ray_cluster: None) -> None:
    path = write(tmp_path, sample=TWO)
    invoke(path)
    run = Run(tmp_path / "run")
    for row in run.table("sample").to_pylist():
        models = [(c["model"], c["revision"], c["temperature"], c["on_policy"]) for c in row["candidates"]]
        assert models == [("org/big", "abc", 1.0, True)] * 2 + [
            ("small", None, t, False) for t in (0.5,) * 3 + (1.0,) * 3
        ]
    summary = json.loads((run.path / "summary.json").read_text())
    assert {"sample-org-big-abc", "sample-small", "sample"} <= set(summary["stages"])
    card = (run.path / "dataset" / "README.md").read_text()
    assert "org/big" in card and "small" in card
    before = run.digest("sample-org-big-abc", 0)
    changed = {**TWO, "models": [TWO["models"][0], {**TWO["models"][1], "n": 1}]}
    path = write(tmp_path, sample=changed)
    assert "sample-org-big-abc" not in pending(invoke(path, "--plan"))
    invoke(path)
    assert run.digest("sample-org-big-abc", 0) == before and len(run.table("sample").to_pylist()[0]["candidates"]) == 4


def test_only_the_named_stages_run(tmp_path: Path, ray_cluster: None) -> None:
    path = write(tmp_path)
    invoke(path, "--stages", "source,sample")
    run = Run(tmp_path / "run")
    assert run.shards("sample") and not run.shards("score") and not (run.path / "dataset").exists()
    planned = invoke(path, "--plan")
    assert "never ran" in planned and "5 of 5" in planned
    invoke(path, "--stages", "score, pair, publish")
    assert (run.path / "dataset" / "README.md").is_file()
    pairs = json.loads((run.path / "summary.json").read_text())["pairs"]
    invoke(path, "--stages", "pair")
    assert json.loads((run.path / "summary.json").read_text())["pairs"] == pairs > 0
    lost = runner.invoke(
        module.app, [str(path), "pair.margin=9", "--stages", "publish", f"output_dir={tmp_path / 'x'}"]
    )
    assert lost.exit_code == 2 and "error:" in lost.output


def test_a_preview_prints_pairs_and_touches_nothing(tmp_path: Path, ray_cluster: None) -> None:
    path = write(tmp_path)
    shown = invoke(path, "--preview", "6")
    assert shown.count("chosen") == shown.count("rejected") >= 1 and "no pair" in shown
    assert not (tmp_path / "run").exists()


def test_a_preview_shows_prompts_about_several_images(tmp_path: Path) -> None:
    stage = preview.First(ScenesSource(scenes=6, questions_per_scene=5), 0, 16, count=6)
    ((_, table),) = stage.shards(Run(tmp_path))
    ((_, everything),) = preview.First(stage.spec, 0, 16, count=99).shards(Run(tmp_path))
    assert table.num_rows == 6 < 30 < everything.num_rows
    shown, first = ({str(images) for images in rows["images"].to_pylist()} for rows in (table, everything.slice(0, 6)))
    assert len(shown) >= 3 > len(first)


def test_a_preview_says_of_every_answer_what_kept_it_out(tmp_path: Path, ray_cluster: None) -> None:
    texts = ["The image shows a sun.", "The image shows a sun and an anchor.", "I cannot see the image.", "..."]
    pair = {"weights": {"objects.hallucinated": -1}, "margin": 0.5, "max_length_ratio": 9}
    sample = {"model": "canned", "n": 8, "engine": {**ENGINE, "texts": texts}}
    path = write(tmp_path, source={"scenes": 4}, sample=sample, pair=pair)
    shown = " ".join(invoke(path, "--preview", "4").replace("│", " ").split())
    # A candidate is printed once, and under it what kept it out.
    assert shown.count("I cannot see the image.") == shown.count("kept out by gate refusal: it declines") > 0
    assert shown.count("kept out by gate empty: it holds no word") > 0
    bare = {"model": "canned", "n": 2, "engine": {**ENGINE, "texts": ["Hard to tell.", "Who knows."]}}
    asked = {"scenes": 2, "questions_per_scene": 2}
    path = write(tmp_path, source=asked, sample=bare, pair={"weights": {"correctness": 1}})
    shown = " ".join(invoke(path, "--preview", "6").replace("│", " ").split())
    assert "kept out by null correctness" in shown and "correctness ?" in shown


def test_nothing_is_left_to_do_after_a_run_and_the_plan_says_so(tmp_path: Path, ray_cluster: None) -> None:
    path = write(tmp_path)
    assert "never ran" in invoke(path, "--plan")
    invoke(path)
    assert invoke(path, "--plan").count("holds") == 5
    assert "margin: 0.5 -> 2" in invoke(path, "pair.margin=2", "--plan")


def test_a_dataset_that_names_files_of_this_machine_is_warned_of(tmp_path: Path, ray_cluster: None) -> None:
    rows = []
    for number in range(4):
        (tmp_path / f"{number}.png").write_bytes(png(number))
        facts = {"objects": [{"name": "sun"}]}
        rows.append(json.dumps({"image": f"{number}.png", "prompt": "Describe the image.", "facts": facts}))
    (tmp_path / "rows.jsonl").write_text("\n".join(rows))
    pair = {"weights": {"objects.hallucinated": -1}, "margin": 0.5, "max_length_ratio": 9}
    path = write(tmp_path, source={"kind": "jsonl", "path": str(tmp_path / "rows.jsonl")}, pair=pair)
    warned = invoke(path, "publish.images=reference")
    assert "images of the pairs are files of this machine" in warned and "publish.images=embed" in warned
    assert "images: reference -> embed" in pending(invoke(path, "--plan"))["publish"]
    assert "warning" not in invoke(path)
    card = (tmp_path / "run" / "dataset" / "README.md").read_text()
    assert "on one machine only" not in card and str(tmp_path) not in card and "pictures/example-1-1.png" in card
