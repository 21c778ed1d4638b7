"""One dtype for all models of a run; a group that says its own keeps it, and is told of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.base.hardware import Hardware, Node
from pipeline.recipe.load import make_recipe
from pipeline.recipe.plan import Plan
from pipeline.run import _dtype, _read
from pipeline.running import pool
from pipeline.running.stage import WorkerSpec
from pipeline.sampling.stage import SampleStage
from pipeline.scoring.run_dtype import begun_in, dtypes, sentence

GPUS = Hardware((Node(96, 8, here=True),))
VALUES: dict[str, Any] = {
    "name": "r",
    "source": {"scenes": 4},
    "sample": {
        "model": "scenes-vlm",
        "models": [
            {"model": "scenes-vlm"},
            {"model": "scenes-vlm-weak", "engine": {"max_num_seqs": 8}},
            {"model": "other", "engine": {"kind": "scripted"}},
        ],
    },
    "score": {
        "scorers": ["likelihood", "judge", "claims"],
        "judge": {"model": "scenes-vlm"},
        "claims": {"model": "someone/else"},
    },
    "pair": {"weights": {"likelihood": 1}},
    "train": {"max_steps": 1},
}


def recipe(**changes: Any) -> Any:
    return make_recipe({**VALUES, **changes})


def opened(plan: Plan) -> dict[str, str]:
    """What each stage opens its vLLM engine in."""
    workers = {stage.name: getattr(stage, "worker", None) for stage in plan.generation()}
    engines = {name: worker.open for name, worker in workers.items() if isinstance(worker, WorkerSpec)}
    return {name: engine.dtype for name, engine in engines.items() if type(engine).__name__ == "OpenVllm"}


@pytest.mark.parametrize(("said", "dtype"), [("auto", "float32"), ("bfloat16", "bfloat16")])
def test_every_engine_of_a_run_is_opened_in_its_dtype(said: str, dtype: str) -> None:
    assert opened(Plan(recipe(dtype=said))) == dict.fromkeys(
        ["sample-scenes-vlm", "sample-scenes-vlm-weak", "ask-judge", "ask-claims"], dtype
    )


def test_scores_training_and_both_evaluations_are_in_it_too() -> None:
    made = recipe(dtype="bfloat16")
    assert made.score.likelihood.dtype == "bfloat16"
    plan = Plan(made)
    assert plan.greedy(8).engine.dtype == plan.greedy(8, Path("trained")).engine.dtype == "bfloat16"
    served = recipe(dtype="bfloat16", sample={"model": "m", "engine": {"kind": "openai", "base_url": "http://h:1/v1"}})
    assert Plan(served).greedy(8, Path("trained")).engine.dtype == "bfloat16"
    assert dtypes(made.model_dump(mode="json"))["train"] == "bfloat16"


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_clip_models_are_in_it_wherever_they_are_asked(dtype: str) -> None:
    made_images = {"kind": "imagine", "texts": {"scenes": 4}, "generator": {"kind": "scenes"}}
    made = recipe(dtype=dtype, source=made_images, score={"scorers": ["likelihood", "clip"]})
    assert made.score.clip.dtype == made.source.rank.dtype == dtype
    own = recipe(dtype=dtype, score={"scorers": ["likelihood", "clip"], "clip": {"dtype": "bfloat16"}})
    assert own.score.clip.dtype == "bfloat16"


def test_without_gpus_a_recipe_and_what_is_recorded_are_as_they_were() -> None:
    made = recipe()
    assert made.sample.engine.dtype == made.score.likelihood.dtype == "auto"
    assert SampleStage(made.sample.each()[0], 0).options()["engine"]["dtype"] == "auto"


def test_what_a_group_says_wins_and_is_told() -> None:
    sample = {"model": "scenes-vlm", "engine": {"dtype": "float16"}}
    made = recipe(dtype="bfloat16", sample=sample, score={"scorers": ["likelihood"]})
    assert made.sample.engine.dtype == "float16"
    assert sentence(made.model_dump(mode="json")) == (
        "Models compute in different precision: sample.engine in float16, score.likelihood in bfloat16, train in "
        "bfloat16."
    )
    assert sentence(recipe(score={"scorers": ["likelihood"]}).model_dump(mode="json")) == (
        "All models compute in float32."
    )


def begin(run: Path, dtype: str) -> None:
    (run / "source").mkdir(parents=True)
    (run / "source" / "data-00000.arrow").touch()
    (run / "recipe.json").write_text(json.dumps({"dtype": dtype}))


@pytest.mark.parametrize(
    ("begun", "there", "dtype", "told"),
    [
        (None, GPUS, "bfloat16", ""),
        (None, Hardware(), "float32", ""),
        ("bfloat16", GPUS, "bfloat16", ""),
        ("auto", Hardware(), "float32", ""),
        ("bfloat16", Hardware(), "bfloat16", "was begun in bfloat16 and goes on in it; begun here, with no GPU"),
        ("auto", GPUS, "float32", "was begun in float32 and goes on in it; begun here, with 8 GPUs"),
    ],
)
def test_a_run_keeps_what_it_was_begun_in_on_other_machines_and_says_so(
    begun: str | None,
    there: Hardware,
    dtype: str,
    told: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(pool, "hardware", lambda: there)
    if begun is not None:
        begin(tmp_path / "r", begun)
    assert _dtype(tmp_path / "r", again=False) == dtype
    said = capsys.readouterr().err
    assert told in said and bool(told) == bool(said)
    assert _dtype(tmp_path / "r", again=True) == there.dtype


def test_nothing_is_begun_before_there_is_a_shard(tmp_path: Path) -> None:
    begin(tmp_path / "r", "bfloat16")
    (tmp_path / "r" / "source" / "data-00000.arrow").unlink()
    assert begun_in(tmp_path / "r", "recipe.json") is None
    assert begun_in(tmp_path / "nowhere", "recipe.json") is None


def test_a_command_reads_the_gpus_and_the_recipe_says_what_came_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "hardware", lambda: GPUS)
    plan, command = _read(["quickstart", f"output_dir={tmp_path}"])
    assert (plan.recipe.dtype, plan.recipe.sample.engine.dtype) == ("bfloat16", "bfloat16")
    assert not any("dtype" in word for word in command)
    said, _ = _read(["quickstart", f"output_dir={tmp_path}", "dtype=float32"])
    assert said.recipe.dtype == "float32"
