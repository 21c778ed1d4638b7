"""Before the first update: rounding is not taken for another model, and another model not for rounding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from reward.forward import attention
from reward.forward.rounding import Difference, bound, judge, scale
from training.config import TrainConfig
from training.data.identity import Start
from training.data.pairs import PairDataset
from training.errors import StepZeroError
from training.forward import sharing
from training.forward.model import prepare_tuning
from training.forward.policy import Policy, make_policy
from training.loop import reference
from training.loop.reference import Reference
from training.loop.step_zero import check_step_zero, compare
from training.loop.worker import Worker

Configure = Callable[..., TrainConfig]
CPU = torch.device("cpu")
#: What every answer was allowed to be off in bfloat16, in nats a token, when each was judged alone.
ALONE = 2e-2


@pytest.fixture
def rounds_by_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrix products in bfloat16 as GPUs do them: another number of rows, another last bit; the same, the same."""
    real = torch.nn.Linear.forward

    def forward(self: torch.nn.Linear, given: torch.Tensor) -> torch.Tensor:
        result = real(self, given)
        if result.dtype != torch.bfloat16:
            return result
        generator = torch.Generator().manual_seed(result.numel())
        last_bit = (torch.rand(result.shape, generator=generator) - 0.5) * 2**-7
        return (result.float() * (1 + last_bit)).bfloat16()

    monkeypatch.setattr(torch.nn.Linear, "forward", forward)


@pytest.fixture(params=["float32", "bfloat16"])
def config(request: pytest.FixtureRequest, configure: Configure) -> TrainConfig:
    return lora(configure, dtype=request.param)


def lora(configure: Configure, **changes: Any) -> TrainConfig:
    # Three pairs a pass for the reference and in the step: 8 pairs, of which the step takes 5.
    defaults = {"tuning": "lora", "dtype": "bfloat16", "batch_size": 5, "micro_batch_size": 3, "objective": "mdpo"}
    return configure(**{**defaults, **changes})


def peaked(make_model: Callable[..., Any], config: TrainConfig, pairs: PairDataset, seed: int = 0) -> Policy:
    """A model whose largest logit is above 22, as those of trained ones are."""
    model = make_model(seed)
    with torch.no_grad():
        width = model.config.text_config.hidden_size
        model.lm_head.weight.normal_(0, 10 / width**0.5)
    if config.dtype == "bfloat16":
        model.bfloat16()
    return make_policy(prepare_tuning(model, config), CPU, config, pairs)


def stored(policy: Policy, pairs: PairDataset, config: TrainConfig) -> Reference:
    return reference.load_or_compute(policy, pairs, config, Start("weights", "config", "processor"), config.output_dir)


def check(policy: Policy, pairs: PairDataset, ref: Reference, config: TrainConfig) -> Any:
    return check_step_zero(policy, pairs, ref, config, Worker(CPU))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_rounding_is_not_taken_for_another_model(
    make_model: Callable[..., Any],
    pairs: PairDataset,
    configure: Configure,
    rounds_by_shape: None,
    seed: int,
    tuning: str,
) -> None:
    config = lora(configure, tuning=tuning)
    policy = peaked(make_model, config, pairs, seed)
    assert policy.forward.share_prefix, policy.note
    step = check(policy, pairs, stored(policy, pairs, config), config)
    assert step.logits > 22
    assert all(difference.nats == 0 for difference in step.same)
    # Each alone would have been refused.
    assert max(difference.per_token for difference in step.stored) > ALONE


def other_images(pairs: PairDataset) -> PairDataset:
    count = len(pairs.rows)
    return replace(pairs, rows=pairs.rows.select([(row + 3) % count for row in range(count)]))


@pytest.mark.parametrize("wrong", ["model", "images", "rows"])
@pytest.mark.parametrize("noisy", [False, True], ids=["exact", "rounding by shape"])
def test_a_reference_of_another_model_other_images_or_other_rows_is_refused(
    make_model: Callable[..., Any],
    pairs: PairDataset,
    config: TrainConfig,
    wrong: str,
    noisy: bool,
    request: pytest.FixtureRequest,
) -> None:
    if noisy:
        request.getfixturevalue("rounds_by_shape")
    policy = peaked(make_model, config, pairs)
    made_by = peaked(make_model, config, pairs, seed=1) if wrong == "model" else policy
    ref = stored(made_by, other_images(pairs) if wrong == "images" else pairs, config)

    def permuted(indices: Any) -> Any:
        return ref([(index + 1) % len(pairs.pairs) for index in indices])

    with pytest.raises(StepZeroError, match=r"stored values are of another model .*Delete .*dataset-reference"):
        check(policy, pairs, permuted if wrong == "rows" else ref, config)


def test_one_wrong_row_among_right_ones_is_refused(
    make_model: Callable[..., Any], pairs: PairDataset, config: TrainConfig, rounds_by_shape: None
) -> None:
    policy = peaked(make_model, config, pairs)
    ref = stored(policy, pairs, config)

    def shifted(indices: Any) -> Any:
        logps = ref(indices)
        logps["rejected"][0] += 10.0
        return logps

    with pytest.raises(StepZeroError, match="log p of `rejected` of row"):
        check(policy, pairs, shifted, config)


def test_adapters_that_do_something_already_are_refused(
    make_model: Callable[..., Any], pairs: PairDataset, config: TrainConfig
) -> None:
    policy = peaked(make_model, config, pairs)
    ref = stored(policy, pairs, config)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.01)
    with pytest.raises(StepZeroError, match="in the same forward pass") as raised:
        check(policy, pairs, ref, config)
    assert ("Set dtype=float32" in str(raised.value)) == (config.dtype == "bfloat16")


def test_a_model_that_draws_as_it_runs_is_refused(
    make_model: Callable[..., Any], pairs: PairDataset, configure: Configure
) -> None:
    config = lora(configure, tuning="full", dtype="float32")
    policy = peaked(make_model, config, pairs)
    ref = stored(policy, pairs, config)
    policy.model.lm_head.register_forward_hook(lambda _, __, logits: logits + 1e-2 * torch.randn_like(logits))
    with pytest.raises(StepZeroError, match="switch that off"):
        check(policy, pairs, ref, config)


def test_without_a_stored_reference_nothing_differs(
    make_model: Callable[..., Any], pairs: PairDataset, configure: Configure, rounds_by_shape: None
) -> None:
    config = lora(configure, cache_reference=False)
    policy = peaked(make_model, config, pairs)
    step = compare(policy, pairs, reference.live(policy, pairs, config), config, Worker(CPU))
    assert len(step.stored) == 5 * 3
    assert all(difference.nats == 0 for difference in (*step.same, *step.stored))


@pytest.mark.parametrize("seed", range(6))
def test_sharing_is_not_switched_off_by_rounding(
    make_model: Callable[..., Any], pairs: PairDataset, configure: Configure, rounds_by_shape: None, seed: int
) -> None:
    policy = peaked(make_model, lora(configure), pairs, seed)
    assert policy.forward.share_prefix, policy.note


@pytest.mark.parametrize("seed", range(3))
def test_a_wrong_mask_switches_sharing_off_in_bfloat16_too(
    make_model: Callable[..., Any],
    pairs: PairDataset,
    configure: Configure,
    rounds_by_shape: None,
    monkeypatch: pytest.MonkeyPatch,
    seed: int,
) -> None:
    real = attention.scaled_dot_product_attention
    monkeypatch.setattr(
        attention,
        "scaled_dot_product_attention",
        lambda q, k, v, is_causal=False, attn_mask=None, **options: real(q, k, v, **options),
    )
    policy = peaked(make_model, lora(configure), pairs, seed)
    assert not policy.forward.share_prefix and "times what rounding explains" in policy.note


def test_sharing_tries_several_pairs_in_bfloat16(
    make_model: Callable[..., Any], pairs: PairDataset, monkeypatch: pytest.MonkeyPatch, configure: Configure
) -> None:
    tried: list[int] = []
    real = sharing.differences
    monkeypatch.setattr(sharing, "differences", lambda *given: (tried.extend(given[2]), real(*given))[1])
    peaked(make_model, lora(configure), pairs)
    assert tried == list(range(8))
    tried.clear()
    peaked(make_model, lora(configure, dtype="float32"), pairs)
    assert tried == [0]


def test_the_bounds() -> None:
    def off(*ratios: float) -> list[Difference]:
        return [Difference("a", 9, ratio * scale(9, 20.0, torch.bfloat16)) for ratio in ratios]

    assert scale(9, 20.0, torch.bfloat16) == pytest.approx(20 * 3 / 128)
    assert scale(9, 20.0, torch.float32) == pytest.approx(20 * 3 / 2**17)
    assert scale(1, 0.1, torch.bfloat16) == 1 / 128  # small logits round no finer than a log-prob of one nat
    assert bound(1) == 8 and bound(36) == 3
    assert judge(off(7.9), 20.0, torch.bfloat16).rounding
    assert not judge(off(8.1), 20.0, torch.bfloat16).rounding
    assert judge(off(*[2.9] * 36), 20.0, torch.bfloat16).rounding
    assert not judge(off(*[3.1] * 36), 20.0, torch.bfloat16).rounding
    assert not judge(off(8.1, *[0.0] * 35), 20.0, torch.bfloat16).rounding
    broken = judge(off(0.1, float("nan"), 0.2), 20.0, torch.bfloat16)
    assert not broken.rounding and broken.worst.nats != broken.worst.nats


def test_a_short_run_in_bfloat16_starts(
    configure: Configure, rounds_by_shape: None, make_model: Callable[..., Any], processor: Any, tmp_path: Any
) -> None:
    from pipeline.base.export import save_for_vllm
    from training.loop.trainer import train

    model = make_model()
    with torch.no_grad():
        model.lm_head.weight.normal_(0, 10 / model.config.text_config.hidden_size**0.5)
    folder = save_for_vllm(model, processor, tmp_path / "peaked")
    assert train(lora(configure, model=str(folder), max_steps=2)).steps == 2
