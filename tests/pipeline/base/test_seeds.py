from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from pipeline.base.seeds import derive


@given(st.integers(), st.text(), st.text(), st.integers(0, 10_000))
def test_a_seed_fits_torch_and_vllm_with_room_for_n(run: int, prompt: str, model: str, index: int) -> None:
    seed = derive(run, prompt, model, index)
    assert 0 <= seed < 2**62
    assert seed == derive(run, prompt, model, index)


def test_the_ranges_of_requests_do_not_touch() -> None:
    # vLLM draws sample i of a request from seed + i.
    n = 64
    seeds = sorted(derive(0, f"{i:04d}", "m") for i in range(5000))
    assert min(b - a for a, b in pairwise(seeds)) > n


def test_every_part_counts_and_parts_do_not_run_together() -> None:
    seeds = {derive(0, "ab", "c"), derive(0, "a", "bc"), derive(1, "ab", "c"), derive(0, "ab", "c", 1)}
    assert len(seeds) == 4


def test_seeds_are_the_same_in_every_release() -> None:
    assert derive(0, "prompt", "scenes-vlm") == 3078648836443606860
