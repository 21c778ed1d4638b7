"""How many threads a worker computes with."""

from pathlib import Path

import pytest

from pipeline.base.model_files import is_small
from pipeline.recipe.load import load_recipe
from pipeline.recipe.plan import Plan
from pipeline.running.pool import threads_each
from pipeline.running.stage import WorkerSpec
from training import job
from training.config.recipe import WholeRecipe


def _spec(model: str | None) -> WorkerSpec:
    return WorkerSpec("vllm:any", object, model=model)


@pytest.fixture
def large(tmp_path: Path) -> str:
    """A folder whose weights are a hole of 100 MB, in a folder of their own as diffusers has them."""
    (tmp_path / "unet").mkdir()
    with (tmp_path / "unet" / "diffusion_pytorch_model.safetensors").open("wb") as file:
        file.truncate(100 * 2**20)
    return str(tmp_path)


def test_a_small_model_leaves_a_core_to_ray_and_a_large_one_takes_all(large: str) -> None:
    assert is_small("scenes-vlm") and not is_small(large)
    assert threads_each(_spec("scenes-vlm"), 1, 2) == 1
    assert threads_each(_spec(large), 1, 2) == 2
    assert threads_each(_spec("scenes-vlm"), 1, 16) == 15


def test_what_is_not_on_this_machine_is_not_taken_for_small() -> None:
    assert not is_small("nobody/has-this-model")
    assert threads_each(_spec("nobody/has-this-model"), 1, 8) == 8


def test_where_nobody_knows_the_model_a_core_is_left() -> None:
    assert threads_each(_spec(None), 1, 8) == 7


@pytest.mark.parametrize("cores", [1, 2, 7])
def test_workers_share_the_cores_and_each_has_one(cores: int, large: str) -> None:
    assert threads_each(_spec(large), 3, cores) == max(1, cores // 3)
    assert threads_each(_spec("scenes-vlm"), 3, cores) == max(1, (cores - 1) // 3)


def test_every_stage_of_the_quickstart_that_holds_a_model_says_which() -> None:
    recipe = load_recipe("quickstart", (), WholeRecipe)
    stages = Plan(recipe, job.evaluation_of(recipe)).generation()
    workers = [getattr(stage, "worker", None) for stage in stages]
    named = {spec.kind.split(":")[0]: spec.model for spec in workers if spec is not None and ":" in spec.kind}
    assert named == {"vllm": "scenes-vlm", "clip": "scenes-clip"}
