"""Other people's engines, and what becomes of answers that are none."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import plugin_kit
import pyarrow as pa
import pytest
from stage_kit import prompt_row, recipe

from pipeline.base.errors import ConfigError, EngineError
from pipeline.base.tables import PROMPTS
from pipeline.engines.plugged_engine import InTurns, Model
from pipeline.engines.protocol import Request, Sampling, ask
from pipeline.recipe.load import make_recipe
from pipeline.recipe.plan import Held, Plan
from pipeline.sampling.config import Sample, VllmOptions
from pipeline.sampling.stage import SampleStage
from pipeline.scoring.stage import stages as score_stages

REQUESTS = [Request(f"r{i}", (), (("user", "Is it?"),), 0) for i in range(3)]
KIND = "plugin_kit:Server"


def spec(model: str = "house-vlm", **engine: Any) -> Sample:
    return Sample.model_validate({"model": model, "n": 2, "engine": {"kind": KIND, **engine}})


def opened(sample: Sample) -> Any:
    return SampleStage(sample, 0).worker.open()


def answers(mode: str) -> dict[str, str | None]:
    responses = ask(plugin_kit.Client(mode, None), REQUESTS, Sampling(n=2))
    return {response.id: response.error_type for response in responses}


def test_an_engine_is_asked_and_its_answers_are_candidates() -> None:
    stage = SampleStage(spec(), 0)
    prompts = pa.Table.from_pylist([prompt_row("p0"), prompt_row("p1")], schema=PROMPTS)
    rows = stage.process(opened(stage.spec), {"source": prompts}).to_pylist()
    assert [[candidate["text"] for candidate in row["candidates"]] for row in rows] == [["A sun.", "A sun."]] * 2


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("good", None),
        ("few", "too_few_answers"),
        ("none", "no_answer"),
        ("texts", "malformed_answer"),
        ("no text", "malformed_answer"),
        ("half", "malformed_answer"),
        ("log-prob", "malformed_answer"),
    ],
)
def test_every_request_has_an_answer_or_an_error(mode: str, kind: str | None) -> None:
    assert answers(mode) == dict.fromkeys(["r0", "r1", "r2"], kind)


@pytest.mark.parametrize(
    ("mode", "line"),
    [
        ("twice", "answered request 'r0' twice"),
        ("other", "answered request 'nobody', which it was not asked"),
        ("mapping", "gave {'id': 'r0'} where a Response is wanted"),
    ],
)
def test_an_engine_that_is_wrong_as_such_ends_the_run(mode: str, line: str) -> None:
    with pytest.raises(EngineError) as caught:
        answers(mode)
    assert line in str(caught.value)


def test_what_open_gives_must_be_an_engine() -> None:
    with pytest.raises(EngineError, match=r"gave a NoneType without generate\(requests, sampling\)"):
        opened(spec(mode="nothing"))


def test_one_shard_after_the_other() -> None:
    engine = InTurns(plugin_kit.Client("good", None))
    with ThreadPoolExecutor(4) as threads:
        counts = list(threads.map(lambda _: len(list(ask(engine, REQUESTS, Sampling()))), range(8)))
    assert counts == [3] * 8 and engine.stats() == {}
    # Without it the test's engine breaks, as others may.
    alone = plugin_kit.Client("good", None)
    with pytest.raises(AssertionError, match="two at a time"), ThreadPoolExecutor(4) as threads:
        list(threads.map(lambda _: list(ask(alone, REQUESTS, Sampling())), range(8)))


def test_it_is_told_of_its_model() -> None:
    client = opened(spec())._engine
    assert client.model == Model("house-vlm", None, None, None)
    assert Path(opened(spec("scenes-vlm", gpus=1))._engine.model.name).is_dir()
    assert opened(spec("scenes-vlm"))._engine.model.name == "scenes-vlm"  # it is elsewhere


def test_version_and_options_are_what_it_is() -> None:
    def options(**engine: Any) -> dict[str, Any]:
        return SampleStage(spec(**engine), 0).options()

    assert options()["model_identity"].startswith(f'{KIND}@2 {{"gpus": 0.0, "mode": "good"}} house-vlm@unknown')
    assert options(mode="few") != options() and options(address="http://other", workers=3) == options()
    assert "sha256:" in SampleStage(spec("scenes-vlm", gpus=1), 0).options()["model_identity"]


def test_workers_and_gpus() -> None:
    worker = SampleStage(spec(workers=3, gpus=2), 0).worker
    assert (worker.count, worker.gpus) == (3, 2.0) and SampleStage(spec(), 0).worker.gpus == 0
    assert SampleStage(spec(), 0).worker == SampleStage(spec(), 1).worker != SampleStage(spec(mode="few"), 0).worker


def test_a_judge_is_asked_through_the_engine_of_the_model_that_it_is(tmp_path: Path) -> None:
    judging = recipe(
        tmp_path,
        sample={"model": "house-vlm", "n": 2, "engine": {"kind": KIND}},
        score={"scorers": ["objects", "correctness", "judge"], "judge": {"model": "house-vlm"}},
    )
    stage = score_stages(judging.score, judging.sample.each(), 0)[0]
    assert stage.worker == SampleStage(judging.sample, 0).worker


@pytest.mark.parametrize(("gpus", "ours"), [(0, False), (1, True)])
def test_the_trained_model_goes_to_the_engine_if_it_has_its_models_here(tmp_path: Path, gpus: int, ours: bool) -> None:
    plan = Plan(
        recipe(tmp_path, sample={"model": "m", "n": 2, "engine": {"kind": KIND, "gpus": gpus}}),
        Held(lambda _: iter(()), {}, 8),
    )
    assert plan.answers("eval-before").spec.engine == plan.recipe.sample.engine
    after = plan.answers("eval-after", tmp_path).spec.engine
    assert (after == plan.recipe.sample.engine) is ours and isinstance(after, VllmOptions) is not ours


@pytest.mark.parametrize(
    ("engine", "line"),
    [
        ({"mod": "few"}, "has no option 'mod'; did you mean mode?"),
        ({"worker": 2}, "has no option 'worker'; did you mean workers?"),
        ({"workers": 0}, "sample.engine.workers: input should be greater than or equal to 1"),
        ({"gpus": -1}, "gpus is -1.0; it is how many GPUs a worker needs"),
        ({"kind": "plugin_kit:Sever"}, "plugin_kit has no 'Sever'; did you mean Server?"),
        ({"kind": "plugin_kit:Rows"}, "has no method open(model)"),
        ({"kind": "vlm"}, "sample.engine.kind: unknown (value 'vlm'); did you mean vllm?"),
    ],
)
def test_a_mistake_is_a_line(engine: dict[str, Any], line: str) -> None:
    values = {"name": "x", "source": {}, "pair": {"weights": {"correctness": 1}}}
    with pytest.raises(ConfigError) as caught:
        make_recipe({**values, "sample": {"model": "m", "engine": {"kind": KIND, **engine}}})
    assert line in str(caught.value) and "\n" not in str(caught.value)
