"""Batches and log-probs: equal to TRL token by token, and equal with and without every saving."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

from reward.forward.features import FeatureCache, can_share
from reward.forward.grouped import stack_images
from reward.forward.packing import Padded, pad
from reward.forward.shareable import enable
from reward.forward.token_logps import Forward, token_logps
from training.config import Branch
from training.data.pairs import PairDataset
from training.forward.batch import PairBatch, collate
from training.forward.logps import sequence_logps
from training.forward.policy import make_policy, pair_logps
from training.loss.objectives import reward

BOTH = ("chosen", "rejected")
ALL = ("chosen", "rejected", "corrupted")


@pytest.fixture(scope="module")
def model(make_model: Callable[..., Any]) -> Any:
    made = make_model()
    enable(made)
    return made


def alone(pairs: PairDataset, indices: Sequence[int], branches: Sequence[Branch]) -> PairBatch:
    return collate(pairs, indices, branches, share_prefix=False)


def pixels(batch: PairBatch) -> Tensor:
    return stack_images([batch.images[i] for group in batch.group_images for i in group])["pixel_values"]  # type: ignore[misc]


def test_sequences_of_one_prompt_stand_in_one_group(pairs: PairDataset) -> None:
    batch = collate(pairs, range(4), ALL)
    assert [len(group) for group in batch.groups] == [2, 1] * 4
    assert batch.order.tolist() == [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]
    for pair, (chosen, rejected), (corrupted,) in zip(batch.pairs, batch.groups[::2], batch.groups[1::2], strict=True):
        assert chosen.ids == corrupted.ids == pair.prompt.ids + pair.chosen_ids
        assert rejected.ids == pair.prompt.ids + pair.rejected_ids
        assert {row.prompt for row in (chosen, rejected, corrupted)} == {len(pair.prompt.ids)}


def test_each_distinct_image_is_listed_once(pairs: PairDataset) -> None:
    for batch in (collate(pairs, range(4), ALL), alone(pairs, range(4), ALL)):
        assert len(batch.images) == len(set(batch.image_keys)) == 8  # 4 pictures and 4 corrupted ones
    assert collate(pairs, range(4), ALL).group_images == tuple((i,) for i in range(8))


def test_log_probs_are_those_of_the_full_logits(model: Any, pairs: PairDataset) -> None:
    batch = alone(pairs, range(4), BOTH)
    rows = pad([row for group in batch.groups for row in group], 0)
    with torch.no_grad():
        logits = model(input_ids=rows.ids, attention_mask=rows.mask, pixel_values=pixels(batch)).logits
        ours = sequence_logps(model, batch, Forward(share_prefix=False))
        shared = sequence_logps(model, collate(pairs, range(4), BOTH))
    logps = logits[:, :-1].log_softmax(-1).gather(2, rows.ids[:, 1:, None]).squeeze(2)
    expected = rows.sums(logps.flatten()[rows.read - rows.read // rows.ids.shape[1]])
    torch.testing.assert_close(ours, expected[batch.order], atol=1e-4, rtol=0)
    torch.testing.assert_close(shared, expected[batch.order], atol=1e-4, rtol=0)


def test_neighbours_do_not_change_a_log_prob(model: Any, pairs: PairDataset) -> None:
    for forward in (Forward(), Forward(share_prefix=False)):
        with torch.no_grad():
            together = sequence_logps(model, collate(pairs, range(8), ALL, (), forward.share_prefix), forward)
            single = [
                sequence_logps(model, collate(pairs, [i], ALL, (), forward.share_prefix), forward) for i in range(8)
            ]
        torch.testing.assert_close(together, torch.cat(single, dim=1), atol=1e-4, rtol=0)


def test_sharing_image_features_changes_neither_log_probs_nor_gradients(model: Any, pairs: PairDataset) -> None:
    assert can_share(model)
    results = []
    for share in (True, False):
        model.zero_grad()
        logps = sequence_logps(model, collate(pairs, range(4), ALL), Forward(share_images=share))
        logps.sum().backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        results.append((logps.detach(), gradients))
    model.zero_grad()
    (shared, shared_gradients), (naive, naive_gradients) = results
    torch.testing.assert_close(shared, naive, atol=1e-4, rtol=0)
    assert shared_gradients.keys() == naive_gradients.keys()
    for name, gradient in naive_gradients.items():
        torch.testing.assert_close(shared_gradients[name], gradient, atol=1e-3, rtol=1e-3)


def test_negative_control_features_of_the_wrong_image_do_change_log_probs(model: Any, pairs: PairDataset) -> None:
    batch = collate(pairs, range(4), ALL)
    rotated = replace(batch, group_images=batch.group_images[1:] + batch.group_images[:1])
    with torch.no_grad():
        apart = (sequence_logps(model, rotated) - sequence_logps(model, batch, Forward(share_images=False))).abs()
    assert apart.max() > 1e-2


def test_the_tower_runs_once_per_distinct_image_and_not_again_once_cached(
    model: Any, pairs: PairDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    real = type(model).get_image_features

    def count(self: Any, pixel_values: Tensor, **options: Any) -> Any:
        seen.append(len(pixel_values))
        return real(self, pixel_values=pixel_values, **options)

    monkeypatch.setattr(type(model), "get_image_features", count)
    forward = Forward(cache=FeatureCache(budget=10**9))
    with torch.no_grad():
        first = sequence_logps(model, collate(pairs, range(4), ALL), forward)
        again = collate(pairs, range(4), ALL, known_images=forward.cache.features)  # type: ignore[union-attr]
        assert again.images == (None,) * 8
        second = sequence_logps(model, again, forward)
    assert seen == [8]
    assert torch.equal(first, second)


def test_a_full_cache_takes_no_more_and_costs_nothing_but_time(model: Any, pairs: PairDataset) -> None:
    size = 4 * 32 * 4  # tokens x width x bytes
    cache = FeatureCache(budget=3 * size)
    with torch.no_grad():
        for _ in range(2):
            cached = sequence_logps(model, collate(pairs, range(4), ALL, cache.features), Forward(cache=cache))
        naive = sequence_logps(model, collate(pairs, range(4), ALL), Forward(share_images=False))
    assert (len(cache.features), cache.used) == (3, 3 * size)
    torch.testing.assert_close(cached, naive, atol=1e-4, rtol=0)


def test_a_row_without_images_is_read_as_text(model: Any, pairs: PairDataset) -> None:
    first = pairs.pairs[0]
    ids = tuple(t for t in first.prompt.ids if t != model.config.image_token_id)
    text_only = replace(first, prompt=replace(first.prompt, ids=ids, images=()))
    mixed = replace(pairs, pairs=(text_only, *pairs.pairs[1:]))
    with torch.no_grad():
        for forward in (Forward(), Forward(share_images=False), Forward(share_prefix=False)):
            share = forward.share_prefix
            both = sequence_logps(model, collate(mixed, [0, 1], BOTH, (), share), forward)
            apart = [sequence_logps(model, collate(mixed, [i], BOTH, (), share), forward) for i in (0, 1)]
            torch.testing.assert_close(both, torch.cat(apart, dim=1), atol=1e-4, rtol=0)


def test_images_of_different_tile_counts_are_padded_at_the_end() -> None:
    single, two = torch.ones(1, 1, 3), torch.ones(1, 2, 3)
    stacked = stack_images([{"pixel_values": single}, {"pixel_values": two}])["pixel_values"]
    assert stacked.shape == (2, 2, 3)
    assert stacked[0].tolist() == [[1, 1, 1], [0, 0, 0]]


@pytest.fixture(scope="module")
def trl_trainer(model_folder: Path, pairs: PairDataset, tmp_path_factory: pytest.TempPathFactory) -> DPOTrainer:
    from transformers import LlavaForConditionalGeneration

    options = DPOConfig(
        output_dir=str(tmp_path_factory.mktemp("trl")),
        beta=0.1,
        max_length=None,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        per_device_train_batch_size=4,
    )
    rows = pairs.rows.cast_column("images", datasets.List(datasets.Image(decode=True)))
    policy = LlavaForConditionalGeneration.from_pretrained(model_folder)
    return DPOTrainer(policy, args=options, train_dataset=rows, processing_class=pairs.processor)


def trl_batch(trainer: DPOTrainer) -> dict[str, Any]:
    rows = trainer.train_dataset.select_columns(["images", "prompt", "chosen", "rejected"])
    return dict(DataCollatorForVisionPreference(trainer.processing_class)([rows[i] for i in range(4)]))


def test_token_ids_masks_and_pixels_are_trls(trl_trainer: DPOTrainer, pairs: PairDataset) -> None:
    theirs, ours = trl_batch(trl_trainer), alone(pairs, range(4), BOTH)
    rows = in_trls_order(ours)
    width = rows.ids.shape[1]
    assert torch.equal(theirs["attention_mask"][:, :width], rows.mask)
    used = rows.mask.bool()
    assert torch.equal(theirs["input_ids"][:, :width][used], rows.ids[used])
    read = theirs["completion_mask"][:, 1:].flatten().nonzero().squeeze(1)
    trl_width = theirs["completion_mask"].shape[1] - 1
    assert [(i // trl_width, i % trl_width) for i in read.tolist()] == [divmod(i, width) for i in rows.read.tolist()]
    trl_order = [*range(0, 8, 2), *range(1, 8, 2)]
    torch.testing.assert_close(theirs["pixel_values"], pixels(ours)[trl_order], atol=0, rtol=0)


def in_trls_order(batch: PairBatch) -> Padded:
    """Padded rows, all chosen ones before all rejected ones."""
    rows = [row for group in batch.groups for row in group]
    return pad([rows[i] for i in batch.order.flatten().tolist()], 0)


def test_per_token_log_probs_and_loss_are_trls(trl_trainer: DPOTrainer, pairs: PairDataset, make_model: Any) -> None:
    theirs, batch = trl_batch(trl_trainer), collate(pairs, range(4), BOTH)
    policy = trl_trainer.model
    enable(policy)
    labels = theirs["input_ids"].masked_fill(theirs["completion_mask"] == 0, -100)
    inputs = {key: value for key, value in theirs.items() if key != "completion_mask"}
    with torch.no_grad():
        trl_logps = policy(**inputs, labels=labels, fused_lm_head=True, use_cache=False).log_probs
        layout, entries = token_logps(policy, batch)
    shifted = theirs["completion_mask"][:, 1:].bool()
    per_row = [row[mask] for row, mask in zip(trl_logps[:, -shifted.shape[1] :], shifted, strict=True)]
    for row, sequence in enumerate(batch.order.flatten().tolist()):
        ours = entries[layout.entries[layout.owners == sequence]]
        torch.testing.assert_close(ours, per_row[row], atol=1e-5, rtol=0)

    # A different policy than the reference, so that the loss is not log 2.
    for target, source in zip(policy.parameters(), make_model(seed=1).parameters(), strict=True):
        target.data.copy_(source.data)
    trl_loss = trl_trainer._compute_loss(policy, theirs, return_outputs=False).item()
    with torch.no_grad():
        chosen, rejected = sequence_logps(policy, batch)
        start = make_model(seed=0)
        enable(start)
        ref_chosen, ref_rejected = sequence_logps(start, batch)
    margin = reward(chosen, ref_chosen, 0.1) - reward(rejected, ref_rejected, 0.1)
    our_loss = -logsigmoid(margin).mean().item()
    assert abs(our_loss - 0.6931) > 1e-3
    assert our_loss == pytest.approx(trl_loss, abs=1e-5)


@pytest.mark.parametrize("without", [("pad_token",), ("pad_token", "eos_token")])
def test_a_tokenizer_without_a_token_to_pad_with_gives_the_same_log_probs(
    make_model: Callable[..., Any], pairs: PairDataset, configure: Callable[..., Any], without: tuple[str, ...]
) -> None:
    processor = copy.deepcopy(pairs.processor)
    for name in without:
        setattr(processor.tokenizer, name, None)
    assert processor.tokenizer.pad_token_id is None
    config, logps = configure(share_prefix=False), []
    for dataset in (pairs, replace(pairs, processor=processor)):
        policy = make_policy(make_model(), torch.device("cpu"), config, dataset)
        logps.append(pair_logps(policy, dataset, range(8), config))
    for branch, values in logps[0].items():
        torch.testing.assert_close(logps[1][branch], values)
