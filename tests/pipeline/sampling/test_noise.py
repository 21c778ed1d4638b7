"""Candidates of origin ``noised``: what a model says about its images under noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from stage_kit import png, prompt_row, recipe

from pipeline.base import noise
from pipeline.base.errors import ConfigError
from pipeline.base.images import pixels
from pipeline.base.noise import GRAIN, signal
from pipeline.base.tables import PROMPTS
from pipeline.engines.protocol import Request, Response, Sampling
from pipeline.engines.scripted import ScriptedEngine
from pipeline.recipe.plan import Plan, run_stage
from pipeline.running.executor import Executor, process_shard
from pipeline.running.store import Run
from pipeline.sampling.config import DiffusionNoise, GaussianNoise, Sample
from pipeline.sampling.noised import add_noise
from pipeline.sampling.stage import SampleStage, slug

NOISE = DiffusionNoise(step=500)
PLAIN = {"model": "org/m", "n": 3, "engine": {"kind": "scripted"}}
BOTH = {**PLAIN, "models": [{}, {"noise": {"step": 500}, "n": 2}]}
SEEN, UNSEEN = "The image shows a sun.", "The image shows a horse."


def grey(width: int, height: int, value: int = 128) -> bytes:
    return pixels.encode(Image.new("RGB", (width, height), (value,) * 3))


def numbers(data: bytes) -> Any:
    return np.asarray(pixels.decode(data), np.float64) / 255


class Eyes:
    """Sees a sun in every image that it knows, and a horse in any other; writes down what it was asked."""

    def __init__(self, images: Sequence[bytes]) -> None:
        self._known = set(images)
        self.requests: list[Request] = []

    def generate(self, requests: Sequence[Request], sampling: Sampling) -> Iterator[Response]:
        self.requests += requests
        yield from ScriptedEngine(answer=self._answer).generate(requests, sampling)

    def _answer(self, request: Request, index: int) -> str:
        return SEEN if set(request.images) <= self._known else UNSEEN


def table(*rows: dict[str, Any]) -> dict[str, pa.Table]:
    return {"source": pa.Table.from_pylist(list(rows), schema=PROMPTS)}


def stage(**changes: Any) -> SampleStage:
    return SampleStage(Sample.model_validate({**PLAIN, "noise": {}, **changes}), seed=0)


def generated(tmp: Path, **changes: Any) -> Run:
    """A run up to its pairs, whose models have ``Eyes``."""
    changes = {"sample": BOTH, "pair": {"policy": "corrupted_image"}, "score": {"scorers": ["objects"]}, **changes}
    plan = Plan(recipe(tmp, **changes))
    run = Run(plan.recipe.run_dir)
    with Executor(run) as executor:
        for step in plan.generation():
            if isinstance(step, SampleStage):
                images = [image["bytes"] for row in run.table("source").to_pylist() for image in row["images"]]
                for shard in run.shards("source"):
                    process_shard(step, Eyes(images), run, shard)
            else:
                run_stage(executor, step, "if-possible")
    return run


# ------------------------------------------------------------------------------------------------------------ pictures


def test_the_same_seed_gives_the_same_picture_and_another_one_another() -> None:
    first = add_noise(png(), NOISE, 7)
    assert first == add_noise(png(), NOISE, 7) != add_noise(png(), NOISE, 8)
    assert pixels.size(first) == pixels.size(png()) and first[1:4] == b"PNG"


@pytest.mark.parametrize("size", [(200, 200), (2 * GRAIN, GRAIN)])
@settings(max_examples=20)
@given(step=st.integers(1, 60))
def test_a_step_of_diffusion_leaves_what_the_schedule_says(size: tuple[int, int], step: int) -> None:
    noised = numbers(add_noise(grey(*size), DiffusionNoise(step=step), step))
    assert noised.std() == pytest.approx(np.sqrt(1 - signal(step)) / 2, rel=0.03, abs=2e-3)
    black = numbers(add_noise(grey(*size, 0), DiffusionNoise(step=step), step))
    middle = np.median(black)  # of a picture at -1, half is clipped
    assert middle == pytest.approx(max(0.0, (1 - np.sqrt(signal(step))) / 2), abs=0.02)


@pytest.mark.parametrize("std", [0.05, 0.1])
def test_gaussian_noise_has_the_deviation_that_is_asked_for(std: float) -> None:
    assert numbers(add_noise(grey(300, 200), GaussianNoise(kind="gaussian", std=std), 1)).std() == pytest.approx(
        std, 0.03
    )


def test_after_the_last_step_nothing_of_the_picture_is_left() -> None:
    left = [numbers(add_noise(grey(64, 64, value), DiffusionNoise(step=1000), 3)) for value in (0, 255)]
    assert np.abs(left[0] - left[1]).max() < 0.02


def test_noise_of_a_large_picture_is_as_coarse_as_a_model_can_see() -> None:
    noised = numbers(add_noise(grey(4 * GRAIN, 8), NOISE, 1))
    cells = noised[:8, ::4]
    assert all((noised[:8, at::4] == cells).all() for at in range(4))
    assert (noised[::4] != noised[3::4]).sum() == 0 and len(np.unique(cells[0])) > 50


def test_a_picture_is_scaled_down_before_it_is_noised() -> None:
    small = add_noise(grey(100, 100), NOISE, 1, max_pixels=2500)
    assert pixels.size(small) == (50, 50) and numbers(small).std() == pytest.approx(
        numbers(add_noise(grey(50, 50), NOISE, 1)).std()
    )


@given(st.integers(1, 1000), st.integers(0, 2**62))
def test_it_is_the_noise_with_which_training_corrupts(step: int, seed: int) -> None:
    rng, picture = np.random.default_rng, pixels.decode(png())
    theirs = noise.diffusion(picture, step, rng(seed))
    assert numbers(add_noise(png(), DiffusionNoise(step=step), seed)).tolist() == (np.asarray(theirs) / 255).tolist()
    theirs = noise.gaussian(picture, step / 500, rng(seed))
    noised = add_noise(png(), GaussianNoise(kind="gaussian", std=step / 500), seed)
    assert numbers(noised).tolist() == (np.asarray(theirs) / 255).tolist()


# ----------------------------------------------------------------------------------------------------------- the stage


def test_the_model_sees_every_image_under_noise_and_the_rest_as_it_is() -> None:
    row = prompt_row("p", images=[{"bytes": png(at), "path": None} for at in (0, 0)])
    eyes = Eyes([png()])
    stage().process(eyes, table(row))
    (request,) = eyes.requests
    assert request.messages == (("user", "Describe the image."),)
    assert len({png(), *request.images}) == 3, "two images of a prompt have different noise"
    again = Eyes([])
    stage().process(again, table(prompt_row("other"), row))
    assert again.requests[1].images == request.images, "the noise is a matter of the prompt alone"
    other = Eyes([])
    stage(model="another").process(other, table(row))
    assert other.requests[0].images == request.images and other.requests[0].seed != request.seed


def test_noised_candidates_say_so_and_have_seeds_of_their_own() -> None:
    rows = table(prompt_row("p"))
    rounds = [stage(**more).process(Eyes([png()]), rows)["candidates"].to_pylist()[0]
             for more in ({}, {"noise": None}, {"noise": {"step": 800}})]  # fmt: skip
    assert [[c["origin"] for c in texts] for texts in rounds] == [["noised"] * 3, ["sampled"] * 3, ["noised"] * 3]
    assert [texts[0]["text"] for texts in rounds] == [UNSEEN, SEEN, UNSEEN]
    assert len({c["seed"] for texts in rounds for c in texts}) == 9
    assert {(c["model"], c["parent"]) for texts in rounds for c in texts} == {("org/m", None)}


def test_a_prompt_without_images_is_not_asked_and_has_not_failed() -> None:
    rows = table(prompt_row("a", images=[]), prompt_row("b"))
    eyes = Eyes([])
    out = stage().process(eyes, rows)
    assert [request.id for request in eyes.requests] == ["b"]
    assert [(row["status"], len(row["candidates"])) for row in out.to_pylist()] == [("ok", 0), ("ok", 3)]
    assert stage().extras(out)["without_images"] == 1
    plain = stage(noise=None).process(Eyes([]), rows)
    assert all(len(row["candidates"]) == 3 for row in plain.to_pylist())
    assert "without_images" not in stage().extras(plain)


def test_what_is_kept_of_an_earlier_session_stays_empty_where_it_was_empty() -> None:
    rows = table(prompt_row("a", images=[]), prompt_row("b"))
    before = stage().process(Eyes([]), rows)
    eyes = Eyes([])
    assert stage().process(eyes, {**rows, "sample": before}).equals(before) and not eyes.requests


def test_an_image_that_cannot_be_noised_fails_its_row_alone() -> None:
    rows = table(prompt_row("a", images=[{"bytes": png()[:60], "path": None}]), prompt_row("b"))
    out = stage().process(Eyes([]), rows).to_pylist()
    assert [row["error_type"] for row in out] == ["unreadable_image", None]


def test_without_noise_the_options_of_a_stage_are_what_they_were() -> None:
    assert not {"noise", "continue", "continuation"} & set(stage(noise=None).options())
    assert stage().options()["noise"] == {"kind": "diffusion", "step": 500}
    assert stage().options() != stage(noise={"step": 501}).options()


# ----------------------------------------------------------------------------------------------------------- the recipe


def test_a_recipe_with_noise_pairs_an_answer_with_that_to_the_noised_image(tmp_path: Path) -> None:
    run = generated(tmp_path)
    rows = {row["id"]: row["candidates"] for row in run.table("sample").to_pylist()}
    pairs = run.table("pair").to_pylist()
    assert len(pairs) == len(rows) and all(pair["reason"] is None for pair in pairs)
    for pair in pairs:
        chosen, rejected = (rows[pair["id"]][pair[side]] for side in ("chosen", "rejected"))
        assert (chosen["origin"], rejected["origin"]) == ("sampled", "noised")
        assert (chosen["text"], rejected["text"]) == (SEEN, UNSEEN)


def test_the_candidates_do_not_depend_on_the_shards(tmp_path: Path) -> None:
    first, other = (generated(tmp_path / str(size), shard_size=size).table("sample") for size in (2, 64))
    assert sorted(first.to_pylist(), key=str) == sorted(other.to_pylist(), key=str)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"sample": PLAIN, "pair": {"policy": "corrupted_image"}}, "needs a model's answers to the images and"),
        ({"sample": {**PLAIN, "noise": {}}, "pair": {"policy": "corrupted_image"}}, "needs a model's answers to"),
        ({"sample": {**PLAIN, "noise": {"step": 0}}}, r"sample\.noise\.step: .* greater than or equal to 1"),
        ({"sample": {**PLAIN, "noise": {"kind": "gaussian", "step": 3}}}, r"sample\.noise\.step: unknown key"),
        ({"sample": {**PLAIN, "noise": {"kind": "blur"}}}, "use one of diffusion, gaussian"),
        ({"sample": {**PLAIN, "models": [{"noise": {}}, {"noise": {"step": 500}}]}}, "names one twice"),
    ],
)
def test_what_is_wrong_with_noise_is_said(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        recipe(tmp_path, **changes)


def test_entries_of_one_model_have_folders_of_their_own_and_follow_each_other(tmp_path: Path) -> None:
    models = [{}, {"model": "b"}, {"noise": {}}, {"noise": {"kind": "gaussian", "std": 0.5}}]
    plan = Plan(recipe(tmp_path, sample={**PLAIN, "models": models}, train={"model": "org/m"}))
    names = [step.name for step in plan.generation()]
    noisy = ["sample-org-m-noised-500", "sample-org-m-noised-gaussian-0.5"]
    assert names == ["source", "sample-org-m", *noisy, "sample-b", "sample", "score", "pair"]
    assert plan.generation()[5].inputs == ("sample-org-m", "sample-b", *noisy), "candidates stand as in the recipe"
    assert [step.on_policy for step in plan.generation()[1:5]] == [True, True, True, False]  # type: ignore[union-attr]


def test_the_model_is_evaluated_without_noise(tmp_path: Path) -> None:
    plan = Plan(recipe(tmp_path, sample={**PLAIN, "models": [{"noise": {}, "n": 2}, {"n": 4}]}))
    assert (plan.base().noise, plan.base().n) == (None, 4)
    only = Plan(recipe(tmp_path, sample={**PLAIN, "noise": {}}))
    assert only.base().noise is None and only.base().model == "org/m"


def test_two_entries_that_would_share_a_folder_are_refused(tmp_path: Path) -> None:
    plan = Plan(recipe(tmp_path, sample={**PLAIN, "models": [{"noise": {}}, {"model": "org/m-noised-500"}]}))
    assert slug(plan.recipe.sample.each()[0]) == slug(plan.recipe.sample.each()[1])
    with pytest.raises(ConfigError, match="sample-org-m-noised-500"):
        plan.generation()
