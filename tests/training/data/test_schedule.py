"""Which pairs go together: every pair once per epoch, budgets kept, and equally many passes where workers must meet."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward.forward.prompt import Prompt
from training.config import Corruption, TrainConfig, make_config
from training.config.steps import steps_per_epoch, total_steps
from training.data.pairs import Pair, PairDataset
from training.data.schedule import (
    mean_chosen_tokens,
    micro_batches,
    passes,
    read_in,
    shares,
    window_of,
)


def config_of(**values: Any) -> TrainConfig:
    return make_config({"model": "m", "dataset": "d", "output_dir": "o", **values})


def pairs_of(lengths: list[int]) -> PairDataset:
    """Pairs whose chosen answers have these lengths; prompts have 2 tokens, rejected answers 1."""
    prompt = Prompt((1, 2), ())
    made = [Pair(i, f"p{i}", f"row {i}", prompt, (3,) * length, (4,)) for i, length in enumerate(lengths)]
    return PairDataset(tuple(made), None, None, Corruption(), 0)  # type: ignore[arg-type]


LENGTHS = st.lists(st.integers(1, 30), min_size=1, max_size=20)


@given(pairs=st.integers(1, 50), batch=st.integers(1, 20), epochs=st.integers(1, 3), seed=st.integers(0, 3))
def test_every_epoch_visits_every_pair_once(pairs: int, batch: int, epochs: int, seed: int) -> None:
    config = config_of(batch_size=batch, micro_batch_size=1, epochs=epochs, seed=seed)
    steps, each = total_steps(pairs, config), steps_per_epoch(pairs, config)
    assert steps == epochs * each
    windows = [window_of(step, pairs, config) for step in range(steps)]
    assert all(1 <= len(window) <= batch for window in windows)
    for epoch in range(epochs):
        visited = [index for window in windows[epoch * each : (epoch + 1) * each] for index in window]
        assert sorted(visited) == list(range(pairs))


@given(pairs=st.integers(1, 50), batch=st.integers(1, 20), steps=st.integers(1, 60), seed=st.integers(0, 3))
def test_the_pairs_that_are_read_are_those_of_the_steps_windows(pairs: int, batch: int, steps: int, seed: int) -> None:
    config = config_of(batch_size=batch, micro_batch_size=1, seed=seed)
    windows = [window_of(step, pairs, config) for step in range(steps)]
    assert read_in(steps, pairs, config) == sorted({index for window in windows for index in window})


def test_max_steps_ends_a_run_early_and_never_lengthens_it() -> None:
    assert total_steps(10, config_of(batch_size=5, micro_batch_size=1, epochs=2, max_steps=3)) == 3
    assert total_steps(10, config_of(batch_size=5, micro_batch_size=1, epochs=2, max_steps=9)) == 4


@given(lengths=LENGTHS, size=st.integers(1, 6), budget=st.integers(1, 80) | st.none(), grouped=st.booleans())
def test_forward_passes_hold_every_pair_once_within_pairs_and_tokens(
    lengths: list[int], size: int, budget: int | None, grouped: bool
) -> None:
    config = config_of(micro_batch_size=size, max_tokens_per_batch=budget, group_by_length=grouped)
    dataset = pairs_of(lengths)
    batches = micro_batches(dataset, range(len(lengths)), config)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert 1 <= len(batch) <= size
        if budget is not None and len(batch) > 1:
            assert sum(2 + lengths[index] + 1 for index in batch) <= budget
    if grouped:
        order = [lengths[index] for batch in batches for index in batch]
        assert order == sorted(order)


def test_without_shared_prefixes_a_prompt_counts_once_per_answer() -> None:
    dataset = pairs_of([5, 5])
    shared = config_of(max_tokens_per_batch=16, share_prefix=True)
    apart = config_of(max_tokens_per_batch=16, share_prefix=False)
    assert micro_batches(dataset, [0, 1], shared) == [[0, 1]]
    assert micro_batches(dataset, [0, 1], apart) == [[0], [1]]


@pytest.mark.parametrize(
    ("more", "tokens"),
    [
        ({}, 2 + 7 + 1),
        ({"corrupted": Prompt((1, 2, 3), ())}, (2 + 7 + 1) + (3 + 7)),  # chosen again, beside the rejected image
        # Beside the similar image: its own answer, chosen, and its own answer beside the pair's image.
        ({"similar": Prompt((1, 2, 3, 4), ()), "similar_ids": (5,) * 6}, (2 + 7 + 1) + (4 + 2 * 6 + 7)),
    ],
)
def test_a_budget_counts_every_sequence_of_a_pair(more: dict[str, Any], tokens: int) -> None:
    dataset = pairs_of([7, 7])
    dataset = replace(dataset, pairs=tuple(replace(pair, **more) for pair in dataset.pairs))
    for budget, batches in ((2 * tokens, [[0, 1]]), (2 * tokens - 1, [[0], [1]])):
        config = config_of(max_tokens_per_batch=budget, micro_batch_size=8, objective="dpo")
        assert micro_batches(dataset, [0, 1], config) == batches


def of_mdpo(lengths: list[int], prompt: int) -> PairDataset:
    """Pairs with a third sequence beside the rejected image; prompts have so many tokens, rejected answers 1."""
    text = Prompt((1,) * prompt, ())
    pairs = [replace(pair, prompt=text, corrupted=text) for pair in pairs_of(lengths).pairs]
    return replace(pairs_of(lengths), pairs=tuple(pairs))


def test_mdpos_third_sequence_counts_where_sharing_a_prompt_does_not_make_up_for_it() -> None:
    # 2 x 60 + 2 x 15 + 1 tokens over 2 x 60 + 15 + 1: 1.11 pairs of DPO, so of four there is room for three.
    dataset = of_mdpo([15] * 8, prompt=60)
    weighed = config_of(objective="mdpo", micro_batch_size=4)
    assert [len(batch) for batch in micro_batches(dataset, range(8), weighed)] == [3, 3, 2]
    counted = config_of(objective="mdpo", micro_batch_size=4, weigh_pairs=False)
    assert [len(batch) for batch in micro_batches(dataset, range(8), counted)] == [4, 4]
    # DPO's own never weigh more, nor does a branch that is only measured, as it keeps nothing.
    assert micro_batches(pairs_of([15] * 8), range(8), weighed) == micro_batches(dataset, range(8), counted)
    probed = config_of(objective="dpo", probe_image=True, micro_batch_size=4)
    assert micro_batches(dataset, range(8), probed) == micro_batches(dataset, range(8), counted)


@given(lengths=LENGTHS, prompt=st.integers(1, 40), size=st.integers(1, 6), weigh=st.booleans())
def test_a_weighed_pass_has_no_more_tokens_than_one_of_sequences_that_share_nothing(
    lengths: list[int], prompt: int, size: int, weigh: bool
) -> None:
    dataset = of_mdpo(lengths, prompt)
    config = config_of(objective="mdpo", micro_batch_size=size, weigh_pairs=weigh)
    batches = micro_batches(dataset, range(len(lengths)), config)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    tokens = [[2 * prompt + 2 * lengths[index] + 1 for index in batch] for batch in batches]
    if weigh:
        most = size * max(2 * prompt + length + 1 for length in lengths)
        assert all(sum(each) <= most or len(each) == 1 for each in tokens)
    else:
        assert all(len(each) == size for each in tokens[:-1])


@given(lengths=LENGTHS, workers=st.integers(1, 6), size=st.integers(1, 4), budget=st.integers(5, 60) | st.none())
def test_workers_share_a_window_and_have_equally_many_passes(
    lengths: list[int], workers: int, size: int, budget: int | None
) -> None:
    config = config_of(micro_batch_size=size, max_tokens_per_batch=budget)
    window = list(range(len(lengths)))
    each = shares(pairs_of(lengths), window, config, workers)
    assert len(each) == workers
    assert len({len(share) for share in each}) == 1
    assert sorted(index for share in each for indices in share for index in indices) == window


@given(lengths=LENGTHS, workers=st.integers(1, 6), sharding=st.sampled_from(["ddp", "fsdp"]))
def test_every_pair_counts_once_and_with_fsdp_workers_always_meet(
    lengths: list[int], workers: int, sharding: str
) -> None:
    config = config_of(micro_batch_size=2, sharding=sharding)
    dataset, window = pairs_of(lengths), range(len(lengths))
    each = [passes(dataset, window, config, rank, workers) for rank in range(workers)]
    counted = [index for share in each for indices, counts in share if counts for index in indices]
    assert sorted(counted) == list(window)
    assert all(indices for share in each for indices, _ in share)
    if sharding == "fsdp":
        assert len({len(share) for share in each}) == 1
        assert all(indices == [0] for share in each for indices, counts in share if not counts)
    else:
        assert all(counts for share in each for _, counts in share)


@pytest.mark.parametrize("sharding", ["ddp", "fsdp"])
def test_a_worker_that_knows_of_no_others_runs_the_whole_window(sharding: str) -> None:
    config = config_of(micro_batch_size=2, sharding=sharding)
    assert passes(pairs_of([1] * 5), range(5), config) == [([0, 1], True), ([2, 3], True), ([4], True)]


def test_the_mean_of_chosen_tokens_is_over_the_window() -> None:
    dataset = pairs_of([1, 5, 9])
    assert mean_chosen_tokens(dataset, [0, 2]) == 5.0
    assert mean_chosen_tokens(replace(dataset), [1]) == 5.0
