"""Batches and log-probs: equal to TRL token by token, and equal with and without every saving."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch
from torch import Tensor
from trl import DPOConfig, DPOTrainer
from trl.trainer.dpo_trainer import DataCollatorForVisionPreference

from training.batch import PairBatch, collate, stack_images
from training.data import PairDataset
from training.logps import FeatureCache, can_share, sequence_logps, token_logps
from training.objectives import dpo

BOTH = ("chosen", "rejected")
ALL = ("chosen", "rejected", "corrupted")


@pytest.fixture(scope="module")
def model(make_model: Callable[..., Any]) -> Any:
    return make_model()


@pytest.fixture(scope="module")
def batch(pairs: PairDataset) -> PairBatch:
    return collate(pairs, range(4), ALL)


def pixels(batch: PairBatch) -> Tensor:
    return stack_images([batch.images[i] for row in batch.row_images for i in row])["pixel_values"]  # type: ignore[misc]


def test_rows_are_right_padded_and_only_the_response_is_scored(batch: PairBatch, pairs: PairDataset) -> None:
    assert batch.input_ids.shape == batch.attention_mask.shape == batch.response_mask.shape
    expected = [p.chosen_ids for p in batch.pairs] + [p.rejected_ids for p in batch.pairs]
    expected += [p.chosen_ids for p in batch.pairs]
    for row, response in enumerate(expected):
        assert tuple(batch.input_ids[row][batch.response_mask[row]].tolist()) == response
        length = int(batch.attention_mask[row].sum())
        assert batch.attention_mask[row, :length].all()
        assert (batch.input_ids[row, length:] == pairs.processor.tokenizer.pad_token_id).all()


def test_each_distinct_image_is_listed_once(batch: PairBatch) -> None:
    # 4 pictures shared by chosen and rejected, 4 corrupted ones.
    assert len(batch.images) == len(set(batch.image_keys)) == 8
    assert batch.row_images == tuple((i,) for i in [0, 1, 2, 3, 0, 1, 2, 3, 4, 5, 6, 7])


def test_log_probs_are_those_of_the_full_logits(model: Any, batch: PairBatch) -> None:
    with torch.no_grad():
        logits = model(
            input_ids=batch.input_ids, attention_mask=batch.attention_mask, pixel_values=pixels(batch)
        ).logits
        ours = token_logps(model, batch)
    logps = logits[:, :-1].log_softmax(-1).gather(2, batch.input_ids[:, 1:, None]).squeeze(2)
    expected = logps * batch.response_mask[:, 1:]
    torch.testing.assert_close(ours, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(sequence_logps(model, batch), expected.sum(1), atol=1e-4, rtol=0)


def test_padding_does_not_change_a_log_prob(model: Any, pairs: PairDataset) -> None:
    with torch.no_grad():
        together = sequence_logps(model, collate(pairs, range(8), BOTH))
        alone = torch.cat([sequence_logps(model, collate(pairs, [i], ("chosen",))) for i in range(8)])
    torch.testing.assert_close(together[:8], alone, atol=1e-4, rtol=0)


def test_sharing_image_features_changes_neither_log_probs_nor_gradients(model: Any, batch: PairBatch) -> None:
    assert can_share(model)
    results = []
    for share in (True, False):
        model.zero_grad()
        logps = sequence_logps(model, batch, share_images=share)
        logps.sum().backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        results.append((logps.detach(), gradients))
    model.zero_grad()
    (shared, shared_gradients), (naive, naive_gradients) = results
    torch.testing.assert_close(shared, naive, atol=1e-4, rtol=0)
    assert shared_gradients.keys() == naive_gradients.keys()
    for name, gradient in naive_gradients.items():
        torch.testing.assert_close(shared_gradients[name], gradient, atol=1e-3, rtol=1e-3)


def test_negative_control_features_of_the_wrong_image_do_change_log_probs(model: Any, batch: PairBatch) -> None:
    rotated = replace(batch, row_images=batch.row_images[1:] + batch.row_images[:1])
    with torch.no_grad():
        apart = (sequence_logps(model, rotated) - sequence_logps(model, batch, share_images=False)).abs()
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
    cache = FeatureCache(budget=10**9)
    with torch.no_grad():
        first = sequence_logps(model, collate(pairs, range(4), ALL), cache=cache)
        again = collate(pairs, range(4), ALL, known_images=cache.features)
        assert again.images == (None,) * 8
        second = sequence_logps(model, again, cache=cache)
    assert seen == [8]
    assert torch.equal(first, second)


def test_a_full_cache_takes_no_more_and_costs_nothing_but_time(model: Any, pairs: PairDataset) -> None:
    size = 4 * 32 * 4  # tokens x width x bytes
    cache = FeatureCache(budget=3 * size)
    with torch.no_grad():
        for _ in range(2):
            batch = collate(pairs, range(4), ALL, known_images=cache.features)
            cached = sequence_logps(model, batch, cache=cache)
        naive = sequence_logps(model, collate(pairs, range(4), ALL), share_images=False)
    assert (len(cache.features), cache.used) == (3, 3 * size)
    torch.testing.assert_close(cached, naive, atol=1e-4, rtol=0)


def test_a_row_without_images_is_read_as_text(model: Any, pairs: PairDataset) -> None:
    text_only = replace(
        pairs.pairs[0],
        images=(),
        prompt_ids=tuple(t for t in pairs.pairs[0].prompt_ids if t != model.config.image_token_id),
    )
    mixed = replace(pairs, pairs=(text_only, *pairs.pairs[1:]))
    with torch.no_grad():
        for share in (True, False):
            assert torch.isfinite(sequence_logps(model, collate(mixed, [0], BOTH), share_images=share)).all()
            assert torch.isfinite(sequence_logps(model, collate(mixed, [0, 1], BOTH), share_images=share)).all()


def test_images_of_different_tile_counts_are_padded_at_the_end() -> None:
    one, two = torch.ones(1, 1, 3), torch.ones(1, 2, 3)
    stacked = stack_images([{"pixel_values": one}, {"pixel_values": two}])["pixel_values"]
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
    theirs, ours = trl_batch(trl_trainer), collate(pairs, range(4), BOTH)
    width = ours.input_ids.shape[1]
    scored = theirs["completion_mask"].bool()
    assert torch.equal(theirs["attention_mask"][:, :width], ours.attention_mask)
    assert torch.equal(scored[:, :width], ours.response_mask)
    used = ours.attention_mask.bool()
    assert torch.equal(theirs["input_ids"][:, :width][used], ours.input_ids[used])
    torch.testing.assert_close(theirs["pixel_values"], pixels(ours), atol=0, rtol=0)


def test_per_token_log_probs_and_loss_are_trls(trl_trainer: DPOTrainer, pairs: PairDataset, make_model: Any) -> None:
    theirs, ours = trl_batch(trl_trainer), collate(pairs, range(4), BOTH)
    policy = trl_trainer.model
    labels = theirs["input_ids"].masked_fill(theirs["completion_mask"] == 0, -100)
    inputs = {key: value for key, value in theirs.items() if key != "completion_mask"}
    with torch.no_grad():
        trl_logps = policy(**inputs, labels=labels, fused_lm_head=True, use_cache=False).log_probs
        our_logps = token_logps(policy, ours)
    trl_logps = trl_logps[:, -theirs["completion_mask"][:, 1:].shape[1] :][:, : our_logps.shape[1]]
    torch.testing.assert_close(trl_logps, our_logps, atol=1e-5, rtol=0)

    # A different policy than the reference, so that the loss is not log 2.
    for target, source in zip(policy.parameters(), make_model(seed=1).parameters(), strict=True):
        target.data.copy_(source.data)
    trl_loss = trl_trainer._compute_loss(policy, theirs, return_outputs=False).item()
    with torch.no_grad():
        chosen, rejected = sequence_logps(policy, ours).chunk(2)
        ref_chosen, ref_rejected = sequence_logps(make_model(seed=0), ours).chunk(2)
    our_loss = dpo(chosen, rejected, ref_chosen, ref_rejected, beta=0.1).mean().item()
    assert abs(our_loss - 0.6931) > 1e-3
    assert our_loss == pytest.approx(trl_loss, abs=1e-5)
