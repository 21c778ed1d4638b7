"""vLLM makes room for the images that come and for no others, and the answers stay what they are."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
from tiny_models import PATCH, hasten_vllm, image, llava, qwen2_5_vl

from pipeline.engines.engine_args import most_pixels
from pipeline.engines.protocol import Request, Response, Sampling

MOST = 3000
GREEDY = Sampling(n=1, temperature=0.0, max_tokens=6)


def request(id: str, *images: bytes) -> Request:
    return Request(id, images, (("user", "What is this?"),), 5)


REQUESTS = [
    request("none"),
    request("small", image(1, 1)),
    request("wide", image(4, 1, seed=1)),
    request("tall", image(1, 5, seed=2)),
    request("large", image(5, 4, seed=3)),
    request("two", image(2, 2, seed=4), image(3, 1, seed=5)),
    request("three", *(image(1, 1, seed=seed) for seed in (6, 7, 8))),
]


@dataclass(frozen=True)
class Opened:
    """An engine's answers, how many tokens it has room for in one image, and whether it holds a vision tower."""

    answers: dict[str, Response]
    tokens: int
    sees: bool


def run(folder: Path, options: dict[str, Any], with_limits: bool = True) -> Opened:
    from pipeline.engines import vllm

    limits = vllm.processor_limits
    if not with_limits:
        vllm.processor_limits = lambda *_: {}
    try:
        engine = vllm.OpenVllm(str(folder), overlap=False, **options)()
    finally:
        vllm.processor_limits = limits
    try:
        answers = {response.id: response for response in engine.generate(REQUESTS, GREEDY)}
        core = engine._runner._llm.llm_engine.engine_core.engine_core
        runner = core.model_executor.driver_worker.worker.model_runner
        budget = runner.mm_budget.mm_max_toks_per_item if runner.mm_budget is not None else {}
        names = [name for name, _ in runner.model.named_parameters()]
        return Opened(answers, budget.get("image", 0), any("vision" in name or "visual" in name for name in names))
    finally:
        engine.close()


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[ProcessPoolExecutor]:
    """The end of one engine takes vLLM's process groups with it, and so any other engine of the process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=hasten_vllm) as pool:
        yield pool


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pipeline.base.export import save_for_vllm

    model, processor = qwen2_5_vl()
    processor.image_processor.size = {"shortest_edge": 256, "longest_edge": 100_000}
    return save_for_vllm(model, processor, tmp_path_factory.mktemp("tiny") / "qwen")


@pytest.fixture(scope="module")
def blind_or_not(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pipeline.base.export import save_for_vllm

    return save_for_vllm(*llava(), tmp_path_factory.mktemp("tiny") / "llava")


def test_room_is_made_for_scaled_images_and_the_answers_stay(qwen: Path, elsewhere: ProcessPoolExecutor) -> None:
    scaled, plain, free = (
        elsewhere.submit(run, qwen, options, with_limits).result()
        for options, with_limits in (
            ({"max_image_pixels": MOST}, True),
            ({"max_image_pixels": MOST}, False),
            ({}, True),
        )
    )
    assert scaled.answers == plain.answers and all(answer.error is None for answer in plain.answers.values())
    unit = 2 * PATCH
    assert plain.tokens == free.tokens == 100_000 // unit**2
    assert scaled.tokens == most_pixels(unit, 256, MOST) // unit**2 < 30
    # The control: larger images than were promised are answered otherwise.
    assert free.answers["large"] != plain.answers["large"]


def test_more_images_than_the_engine_was_started_for_are_a_row_that_failed(
    blind_or_not: Path, elsewhere: ProcessPoolExecutor
) -> None:
    most, users = (
        elsewhere.submit(run, blind_or_not, options).result()
        for options in (
            {"most_images": 2},
            {"most_images": 2, "engine_args": {"limit_mm_per_prompt": {"image": 4}, "enable_prefix_caching": False}},
        )
    )
    refused = {id: answer for id, answer in most.answers.items() if answer.error is not None}
    assert set(refused) == {"three"} and refused["three"].error_type == "too_many_images"
    assert refused["three"].error == "3 images, and the engine was started for prompts of at most 2"
    assert all(answer.error is None for answer in users.answers.values())
    assert most.sees and {id: most.answers[id] for id in ("small", "two")} == {
        id: users.answers[id] for id in ("small", "two")
    }


def test_a_model_that_is_shown_no_image_is_loaded_without_its_tower(
    blind_or_not: Path, elsewhere: ProcessPoolExecutor
) -> None:
    blind, seeing = (elsewhere.submit(run, blind_or_not, {"most_images": most}).result() for most in (0, None))
    assert not blind.sees and seeing.sees
    assert blind.answers["none"] == seeing.answers["none"]
    assert blind.answers["small"].error_type == "too_many_images"
