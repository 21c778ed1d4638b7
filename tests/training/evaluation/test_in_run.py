"""``evaluate: {kind: benchmarks}``: the suites of a recipe before and after training, and what its summary says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image
from stage_kit import recipe
from typer.testing import CliRunner

from pipeline import run as module
from pipeline.base.errors import PipelineError
from pipeline.engines.scripted import ScriptedEngine
from pipeline.publishing.evaluation_rows import evaluation_rows
from pipeline.recipe.load import load_recipe
from pipeline.recipe.plan import Plan
from pipeline.running.executor import Executor, process_shard
from pipeline.running.pool import Done
from pipeline.running.store import Run
from training import job
from training.config.evaluation import BenchmarkEvaluation
from training.config.recipe import WholeRecipe
from training.evaluation.in_run import BenchmarksOfRun
from training.evaluation.session import session

IMAGES = 8


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """POPE's three files about red images, half of whose questions are to be answered with yes."""
    folder = tmp_path / "data" / "pope"
    (folder / "images").mkdir(parents=True)
    rows = []
    for number in range(IMAGES):
        name = f"{number}.png"
        Image.new("RGB", (8, 8), (255, number, 0)).save(folder / "images" / name)
        for thing, label in (("cat", "yes"), ("dog", "no")):
            rows.append({"image": name, "text": f"Is there a {thing} in the image?", "label": label})
    for split in ("random", "popular", "adversarial"):
        text = "".join(json.dumps({"question_id": i, **row}) + "\n" for i, row in enumerate(rows))
        (folder / f"coco_pope_{split}.json").write_text(text)
    return folder.parent


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "run" / "train" / "model"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stages run in this process; the base model says yes to everything, the trained one is right. Questions asked."""
    questions: list[str] = []

    class InPlace(Executor):
        def _work(self, stage: Any, record: Any, todo: Any) -> Any:
            trained = "train" in Path(stage.spec.model).parts

            class Answers:
                def generate(self, requests: Any, sampling: Any) -> Any:
                    for request in requests:
                        text = request.messages[-1][1]
                        questions.append(text)
                        yes = not trained or "cat" in text
                        engine = ScriptedEngine(answer=lambda *_, yes=yes: "Yes" if yes else "No")
                        yield from engine.generate([request], sampling)

            return (Done(shard, process_shard(stage, Answers(), self._store, shard, record)) for shard in todo)

    monkeypatch.setattr(session, "Executor", InPlace)
    return questions


def benchmarks(tmp_path: Path, data: Path, suites: tuple[str, ...] = ("pope",), **options: Any) -> BenchmarksOfRun:
    (tmp_path / "base").mkdir(exist_ok=True)
    (tmp_path / "base" / "config.json").write_text("{}")
    plan = Plan(recipe(tmp_path, sample={"model": str(tmp_path / "base"), "system_prompt": "Be brief."}))
    return BenchmarksOfRun(plan, BenchmarkEvaluation(kind="benchmarks", suites=suites, data=data, **options))


def test_before_and_after_are_asked_once_and_compared_by_image(
    tmp_path: Path, data: Path, model: Path, asked: list[str]
) -> None:
    of_run, run = benchmarks(tmp_path, data), Run(tmp_path / "run")
    of_run.measure(run, "before")
    assert len(asked) == 2 * IMAGES
    (only_before, *_) = of_run.results(run, None)
    assert (only_before["before"], only_before["after"], only_before["p_value"]) == (0.5, None, None)
    of_run.measure(run, "after", model)
    rows = {row["metric"]: row for row in of_run.results(run, model)}
    accuracy, yes = rows["accuracy"], rows["yes_ratio"]
    assert (accuracy["before"], accuracy["after"], accuracy["difference"], accuracy["better"]) == (
        0.5,
        1,
        0.5,
        "higher",
    )
    assert accuracy["before_ci"] == [0.5, 0.5] and accuracy["difference_ci"] == [0.5, 0.5]
    assert accuracy["p_value"] < 0.05 and yes["better"] is None
    assert (run.path / "evaluate" / "compare.md").is_file() and (
        run.path / "evaluate" / "after" / "results.png"
    ).is_file()
    before = len(asked)
    of_run.measure(run, "before")
    of_run.measure(run, "after", model)
    assert len(asked) == before == 4 * IMAGES
    of_run.measure(run, "before", again=True)
    assert len(asked) == before + 2 * IMAGES


def test_the_plan_lists_what_would_be_asked_and_why(tmp_path: Path, data: Path, model: Path, asked: list[str]) -> None:
    of_run, run = benchmarks(tmp_path, data), Run(tmp_path / "run")
    (model / "config.json").write_text('{"trained": true}')
    assert of_run.unmeasured(run, "before", None) == {"pope": "never ran"}
    of_run.measure(run, "before")
    of_run.measure(run, "after", model)
    assert of_run.unmeasured(run, "before", None) == of_run.unmeasured(run, "after", model) == {}
    assert of_run.unmeasured(run, "after", None) == {"pope": "the model is another one"}
    shorter = BenchmarksOfRun(of_run.plan, of_run.config.model_copy(update={"max_tokens": 9}))
    assert shorter.unmeasured(run, "before", None) == {"pope": "max_tokens: 512 -> 9"}
    plan: Any = replace(of_run.plan, recipe=of_run.plan.recipe.model_copy(update={"train": {"epochs": 1}}))
    before, after = job.outlook(plan, run, of_run, stale=False)[1:]
    assert (before.stage, before.done, before.reasons) == ("evaluate before", 1, ())
    assert (after.stage, after.done, after.reasons) == ("evaluate after", 0, ("pope: the model is trained first",))
    with (data / "pope" / "coco_pope_random.json").open("a") as file:
        file.write("\n")
    changed = BenchmarksOfRun(of_run.plan, of_run.config).unmeasured(run, "before", None)
    assert changed == {"pope": "its files or its metrics are other ones"}


def test_results_of_another_model_are_none_of_this_run(
    tmp_path: Path, data: Path, model: Path, asked: list[str]
) -> None:
    of_run, run = benchmarks(tmp_path, data), Run(tmp_path / "run")
    of_run.measure(run, "before")
    of_run.measure(run, "after", model)
    (model / "config.json").write_text('{"trained": "again"}')
    assert all(row["after"] is None for row in of_run.results(run, model))
    of_run.measure(run, "after", model)
    assert of_run.results(run, model)[0]["after"] == 1


def test_sides_that_cannot_be_compared_keep_their_numbers(
    tmp_path: Path, data: Path, model: Path, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run(tmp_path / "run")
    benchmarks(tmp_path, data).measure(run, "before")
    of_run = benchmarks(tmp_path, data, limit=3)
    of_run.measure(run, "after", model)
    first = of_run.results(run, model)[0]
    assert (first["before"], first["after"], first["difference"], first["p_value"]) == (0.5, 1, None, None)
    assert "warning: before and after are not compared" in capsys.readouterr().err


def test_results_of_a_suite_that_the_recipe_does_not_name_are_not_shown(
    tmp_path: Path, data: Path, asked: list[str]
) -> None:
    run = Run(tmp_path / "run")
    benchmarks(tmp_path, data).measure(run, "before")
    assert benchmarks(tmp_path, data, suites=("chair",)).results(run, None) == []


def test_the_report_shows_the_benchmarks_with_their_p_values(
    tmp_path: Path, data: Path, model: Path, asked: list[str]
) -> None:
    of_run, run = benchmarks(tmp_path, data), Run(tmp_path / "run")
    of_run.measure(run, "before")
    of_run.measure(run, "after", model)
    (run.path / "summary.json").write_text(json.dumps({"benchmarks": of_run.results(run, model)}))
    shown = evaluation_rows(run.path)
    assert shown.labels == ("before", "after") and shown.rows[0].metric.label == "POPE: accuracy"
    assert shown.rows[0].verdict == "better" and shown.rows[0].p_value is not None and shown.rows[0].metric.tile


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"suites": ["pop"]}, "did you mean pope?"),
        ({"suites": ["mmhal"]}, "suite mmhal needs a judge"),
        ({"suites": ["chair"]}, "suite chair: there is no"),
        ({"options": {"pope": {"parsr": "official"}}}, "did you mean parser?"),
        ({"images": "elsewhere"}, "there is no folder elsewhere; give evaluate.images DIR"),
        ({"data": "elsewhere"}, "there is no folder elsewhere"),
    ],
)
def test_what_is_missing_is_named_before_anything_runs(
    tmp_path: Path, data: Path, change: dict[str, Any], says: str
) -> None:
    values = recipe(tmp_path).model_dump(mode="json")
    values["evaluate"] = {"kind": "benchmarks", "suites": ["pope"], "data": str(data), **change}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    result = CliRunner().invoke(module.app, [str(path)])
    assert result.exit_code == 2 and says in result.output and not (tmp_path / "run" / "source").exists()


@pytest.mark.parametrize(
    ("evaluate", "says"),
    [
        ({"kind": "benchmark", "suites": ["pope"], "data": "d"}, "use one of scenes, benchmarks"),
        ({"kind": "benchmarks", "suites": ["pope"], "dta": "d"}, "did you mean evaluate.data?"),
        ({"kind": "benchmarks", "suites": [], "data": "d"}, "evaluate.suites"),
        (
            {"kind": "benchmarks", "suites": ["mmhal"], "data": "d", "judge": {"modl": "m"}},
            "did you mean evaluate.judge.model?",
        ),
        ({"scene": 4}, "did you mean evaluate.scenes?"),
    ],
)
def test_what_a_recipe_says_of_benchmarks_is_checked(tmp_path: Path, evaluate: dict[str, Any], says: str) -> None:
    values = {**recipe(tmp_path).model_dump(mode="json"), "evaluate": evaluate}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(PipelineError, match=says.replace("?", r"\?")):
        load_recipe(str(path), (), WholeRecipe)


def test_a_run_measures_and_tells(tmp_path: Path, data: Path, asked: list[str], ray_cluster: None) -> None:
    values = recipe(tmp_path, score={"scorers": ["objects", "correctness"]}).model_dump(mode="json")
    values["evaluate"] = {"kind": "benchmarks", "suites": ["pope"], "data": str(data)}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    result = CliRunner().invoke(module.app, [str(path)])
    assert result.exit_code == 0, result.output
    assert "POPE" in result.output and "accuracy" in result.output
    rows = json.loads((tmp_path / "run" / "summary.json").read_text())["benchmarks"]
    assert rows[0]["metric"] == "accuracy" and rows[0]["before"] == 0.5
    assert "POPE: accuracy" in (tmp_path / "run" / "report.html").read_text()
