"""What vLLM is started with: limits by the card and by the data, and arguments that users pass on."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic import ValidationError

from pipeline.base.errors import ConfigError
from pipeline.engines import engine_args
from pipeline.engines.engine_args import card_limits, check, engine_arg_names, most_pixels, processor_limits
from pipeline.sampling.config import Sample
from pipeline.sampling.stage import SampleStage, worker


def sample(**engine: Any) -> Sample:
    return Sample.model_validate({"model": "m", "engine": engine})


@pytest.mark.parametrize(
    ("memory", "name", "limits"),
    [
        (178.0, "NVIDIA B200", (1024, 16384)),
        (79.6, "NVIDIA H100 80GB HBM3", (1024, 16384)),
        (79.3, "NVIDIA A100-SXM4-80GB", (256, 8192)),
        (47.5, "NVIDIA L40S", (256, 8192)),
        (19.9, "a quarter of an H100", (128, 4096)),
        (0.0, "", (128, 4096)),
    ],
)
def test_larger_cards_take_larger_steps(memory: float, name: str, limits: tuple[int, int]) -> None:
    assert card_limits(memory, name) == limits


@given(
    unit=st.sampled_from([16, 28, 32]),
    smallest=st.sampled_from([0, 256, 3136, 65536]),
    most=st.integers(1, 2_000_000),
    height=st.integers(1, 2000),
    narrower=st.floats(0, 1),
)
def test_no_image_becomes_larger_than_there_is_room_for(
    unit: int, smallest: int, most: int, height: int, narrower: float
) -> None:
    from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

    width = int(min(most // height, height * 200) * (1 - narrower**2))
    assume(width * 200 >= height)
    limit = most_pixels(unit, smallest, most)
    free = smart_resize(height, width, factor=unit, min_pixels=smallest, max_pixels=10**12)
    assert free[0] * free[1] <= limit
    assert smart_resize(height, width, factor=unit, min_pixels=smallest, max_pixels=limit) == free


def test_room_is_made_for_little_more_than_the_largest_image() -> None:
    assert 1_000_000 < most_pixels(28, 3136, 1_000_000) < 1_200_000


def test_only_processors_that_scale_by_pixels_are_told() -> None:
    from transformers import CLIPImageProcessor, Idefics3ImageProcessor, Qwen2VLImageProcessor

    qwen = Qwen2VLImageProcessor(size={"shortest_edge": 3136, "longest_edge": 12_845_056})
    size = {"shortest_edge": 3136, "longest_edge": most_pixels(28, 3136, 500_000)}
    assert processor_limits(qwen, 500_000) == {"images_kwargs": {"size": size}}
    assert processor_limits(qwen, 50_000_000) == {}
    assert processor_limits(CLIPImageProcessor(), 1000) == processor_limits(Idefics3ImageProcessor(), 1000) == {}


def test_the_names_are_read_without_importing_vllm() -> None:
    names = engine_arg_names()
    assert {"quantization", "limit_mm_per_prompt", "hf_overrides"} <= names
    assert engine_args.OURS | engine_args.NEUTRAL_ARGS | set(engine_args.MERGED) <= names


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ({"quantisation": "awq"}, "vLLM has no argument 'quantisation'; did you mean 'quantization'?"),
        ({"max-loras": 2}, "did you mean 'max_loras'?"),
        ({"zzz": 1}, "see vLLM's EngineArgs"),
        ({"dtype": "half"}, "engine_args has 'dtype', which is an option of its own; write it as engine.dtype"),
        ({"runner": "pooling"}, "engine_args has 'runner', which the engine sets itself; remove it"),
        ({"limit_mm_per_prompt": 4}, "engine_args.limit_mm_per_prompt is 4; write a mapping"),
    ],
)
def test_a_wrong_argument_is_named_when_the_recipe_is_read(args: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as error:
        sample(engine_args=args)
    assert says in str(error.value)
    with pytest.raises(ConfigError):
        check(args)


def test_a_machine_without_vllm_lets_all_names_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_args, "engine_arg_names", frozenset)
    check({"anything": 1})


def test_what_changes_answers_is_in_the_fingerprint_and_nothing_else() -> None:
    def engine(**options: Any) -> dict[str, Any]:
        recorded: dict[str, Any] = sample(**options).engine.result_options()
        return recorded

    plain = engine()
    assert "engine_args" not in plain
    assert engine(engine_args={"enforce_eager": True, "limit_mm_per_prompt": {"image": 2}}) == plain
    assert engine(gpus=0.5, max_num_seqs=9, max_num_batched_tokens=99) == plain
    changed = engine(engine_args={"quantization": "fp8", "enforce_eager": True})
    assert changed == {**plain, "engine_args": {"quantization": "fp8"}}
    options = SampleStage(sample(engine_args={"quantization": "fp8"}).model_copy(update={"model": "scenes-vlm"}), 0)
    assert options.options()["engine"]["engine_args"] == {"quantization": "fp8"}


def test_a_share_of_a_gpu_is_of_one_gpu() -> None:
    shared, whole, two = (worker(sample(**options)) for options in ({"gpus": 0.25}, {}, {"tensor_parallel_size": 2}))
    assert (shared.gpus, whole.gpus, two.gpus) == (0.25, 1.0, 2.0)
    with pytest.raises(ValidationError, match=r"gpus=0\.5 is a share of one GPU"):
        sample(gpus=0.5, tensor_parallel_size=2)
    with pytest.raises(ValidationError, match="less than or equal to 1"):
        sample(gpus=2)
