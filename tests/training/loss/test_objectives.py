"""The objectives against the papers' formulas, written out by hand in float64."""

from __future__ import annotations

import doctest
import math
from collections.abc import Callable
from dataclasses import replace
from typing import get_args

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from training.config.objective import LossType
from training.loss import objectives
from training.loss.objectives import (
    LOSSES,
    Responses,
    anchor_term,
    image_term,
    lower_anchor_term,
    margin_term,
    preference,
    reward,
    symmetric_term,
)

BETA = 0.1
SMOOTHING = 0.1
LOG_2 = math.log(2)
logps = st.floats(-100, 0)
rewards = st.floats(-20, 20)


def column(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def sigma(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def loss_of(x: float) -> float:
    return -math.log(sigma(x))


def one_pair(chosen: float, rejected: float, ref_chosen: float, ref_rejected: float) -> Responses:
    return Responses(
        column(chosen), column(rejected), column(ref_chosen), column(ref_rejected), column(4), column(6), 5.0
    )


pairs = st.builds(one_pair, logps, logps, logps, logps)
#: Log-ratios 2 (over 4 tokens) and -3 (over 6), so r_w = 0.2, r_l = -0.3 and h = 0.5; per token the difference is 1.
PAIR = one_pair(-10.0, -14.0, -12.0, -11.0)
BY_HAND = {
    "sigmoid": loss_of(0.5),
    "ipo": (2 / 4 + 3 / 6 - 1 / (2 * BETA)) ** 2,
    "hinge": 1 - 0.5,
    "robust": ((1 - SMOOTHING) * loss_of(0.5) - SMOOTHING * loss_of(-0.5)) / (1 - 2 * SMOOTHING),
    "bco_pair": loss_of(0.2) + loss_of(0.3),
    "apo_zero": 1 - sigma(0.2) + sigma(-0.3),
    "apo_down": sigma(0.2) + 1 - sigma(0.5),
    "sft": 10 / 5,
    "sigmoid_norm": loss_of(BETA * 1),
}
#: Where a likelier chosen response is always better. (ipo has an optimum, apo_down wants less of both.)
FALLING = ["sigmoid", "hinge", "robust", "bco_pair", "apo_zero", "sft", "sigmoid_norm"]


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_is_its_formula(name: str) -> None:
    assert LOSSES[name](PAIR, BETA, SMOOTHING).item() == pytest.approx(BY_HAND[name], abs=1e-14)


def test_every_loss_of_the_configuration_exists_and_no_other() -> None:
    assert set(LOSSES) == set(get_args(LossType)) == set(BY_HAND)


def test_the_examples_in_the_docstrings_are_true() -> None:
    result = doctest.testmod(objectives)
    assert result.attempted >= 15
    assert result.failed == 0


def test_the_reward_is_beta_times_the_log_ratio() -> None:
    assert reward(column(-10), column(-12), BETA).item() == pytest.approx(0.2, abs=1e-15)


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_of_each_loss_is_that_of_its_formula(name: str) -> None:
    torch.manual_seed(0)
    counts, inputs = column(3, 5, 7, 2), [torch.randn(4, dtype=torch.float64, requires_grad=True) for _ in range(4)]

    def loss(*given: Tensor) -> Tensor:
        return LOSSES[name](Responses(*given, counts, counts + 1, 4.25), 0.3, SMOOTHING)

    assert torch.autograd.gradcheck(loss, inputs)
    gradient = torch.autograd.grad(loss(*inputs).sum(), inputs[0])[0]
    assert (gradient != 0).all()


@pytest.mark.parametrize(
    "term",
    [
        image_term,
        symmetric_term,
        lambda a, b: anchor_term(a, 0.1) + lower_anchor_term(b, 0.1),
        lambda a, b: margin_term(a, b, 0.3),
    ],
)
def test_the_gradient_of_each_term_is_that_of_its_formula(term: Callable[[Tensor, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    assert torch.autograd.gradcheck(term, [torch.randn(4, dtype=torch.float64, requires_grad=True) for _ in range(2)])


@pytest.mark.parametrize("name", LOSSES)
def test_one_value_per_pair_and_none_depends_on_its_neighbours(name: str) -> None:
    both = Responses(
        column(-10, -3), column(-14, -5), column(-12, -2), column(-11, -6), column(4, 2), column(6, 3), 5.0
    )
    second = Responses(column(-3), column(-5), column(-2), column(-6), column(2), column(3), 5.0)
    apart = [LOSSES[name](pair, BETA, SMOOTHING) for pair in (PAIR, second)]
    assert torch.equal(LOSSES[name](both, BETA, SMOOTHING), torch.cat(apart))


@given(pairs)
def test_swapping_the_responses_mirrors_sigmoid(pair: Responses) -> None:
    # -log sigmoid(-h) = h - log sigmoid(h)
    swapped = replace(
        pair, chosen=pair.rejected, rejected=pair.chosen, ref_chosen=pair.ref_rejected, ref_rejected=pair.ref_chosen
    )
    margin = pair.margin(BETA).item()
    assert swapped.margin(BETA).item() == -margin
    gap = LOSSES["sigmoid"](swapped, BETA, 0.0) - LOSSES["sigmoid"](pair, BETA, 0.0)
    assert gap.item() == pytest.approx(margin, abs=1e-12)


@pytest.mark.parametrize("name", FALLING)
@given(pairs, st.floats(0.1, 10))
def test_a_likelier_chosen_response_costs_less(name: str, pair: Responses, more: float) -> None:
    before = LOSSES[name](pair, BETA, SMOOTHING)
    after = LOSSES[name](replace(pair, chosen=pair.chosen + more), BETA, SMOOTHING)
    assert after < before or (name == "hinge" and before == 0)


@pytest.mark.parametrize("name", LOSSES)
@given(st.lists(st.floats(-1e4, 1e4), min_size=4, max_size=4), st.floats(0.01, 10))
def test_losses_and_gradients_stay_finite_however_far_apart_the_log_probs_are(
    name: str, values: list[float], beta: float
) -> None:
    pair = one_pair(*values)
    pair.chosen.requires_grad_()
    loss = LOSSES[name](pair, beta, SMOOTHING)
    assert torch.isfinite(loss).all()
    assert torch.isfinite(torch.autograd.grad(loss, pair.chosen)[0]).all()


@given(logps, logps)
def test_equal_models_lose_log_2_per_comparison(chosen: float, rejected: float) -> None:
    same = one_pair(chosen, rejected, chosen, rejected)
    values = {name: LOSSES[name](same, BETA, SMOOTHING).item() for name in LOSSES}
    for name in ("sigmoid", "robust", "sigmoid_norm"):
        assert values[name] == pytest.approx(LOG_2, abs=1e-12)
    assert values["bco_pair"] == pytest.approx(2 * LOG_2, abs=1e-12)
    assert values["hinge"] == values["apo_zero"] == values["apo_down"] == 1


@given(pairs)
def test_robust_without_flips_is_sigmoid_and_sigmoid_ignores_smoothing(pair: Responses) -> None:
    plain = LOSSES["sigmoid"](pair, BETA, 0.0)
    assert torch.equal(LOSSES["robust"](pair, BETA, 0.0), plain)
    assert torch.equal(LOSSES["sigmoid"](pair, BETA, 0.4), plain)


def test_negative_control_robust_with_flips_is_not_sigmoid() -> None:
    assert abs(LOSSES["robust"](PAIR, BETA, SMOOTHING) - LOSSES["sigmoid"](PAIR, BETA, SMOOTHING)).item() > 0.01


@given(st.floats(0, 0.45), st.floats(-5, 5))
def test_robust_is_unbiased_when_that_share_of_the_labels_is_flipped(flips: float, ratio: float) -> None:
    right, wrong = one_pair(ratio, 0, 0, 0), one_pair(0, ratio, 0, 0)
    seen = (1 - flips) * LOSSES["robust"](right, BETA, flips) + flips * LOSSES["robust"](wrong, BETA, flips)
    assert seen.item() == pytest.approx(LOSSES["sigmoid"](right, BETA, 0.0).item(), abs=1e-9)


@given(
    st.lists(st.tuples(st.floats(-300, 0), st.integers(1, 200)), min_size=2, max_size=12).flatmap(
        lambda pairs: st.tuples(st.just(pairs), st.integers(1, len(pairs) - 1))
    )
)
def test_sft_of_a_step_is_the_token_mean_however_it_is_cut(given: tuple[list[tuple[float, int]], int]) -> None:
    pairs, cut = given
    total = sum(count for _, count in pairs)
    step = sum(
        LOSSES["sft"](
            Responses(
                *(column(*(value for value, _ in part)) for _ in range(4)),
                *(torch.tensor([count for _, count in part]) for _ in range(2)),
                mean_chosen_tokens=total / len(pairs),
            ),
            BETA,
            0.0,
        )
        .sum()
        .item()
        for part in (pairs[:cut], pairs[cut:])
    )
    assert step / len(pairs) == pytest.approx(-sum(value for value, _ in pairs) / total, abs=1e-9)


def test_a_response_without_tokens_is_not_divided_by_zero() -> None:
    empty = replace(PAIR, chosen=column(0), ref_chosen=column(0), chosen_tokens=torch.tensor([0]))
    for name in ("ipo", "sigmoid_norm"):
        assert torch.isfinite(LOSSES[name](empty, BETA, 0.0)).all()


def test_mpo_is_the_weighted_sum() -> None:
    mpo = preference(PAIR, ("sigmoid", "bco_pair", "sft"), (0.8, 0.2, 1.0), BETA).item()
    by_hand = 0.8 * BY_HAND["sigmoid"] + 0.2 * BY_HAND["bco_pair"] + BY_HAND["sft"]
    assert mpo == pytest.approx(by_hand, abs=1e-14)


def test_without_weights_losses_are_added() -> None:
    both = preference(PAIR, ["robust", "hinge"], None, BETA, SMOOTHING).item()
    assert both == pytest.approx(BY_HAND["robust"] + BY_HAND["hinge"], abs=1e-14)


def test_a_loss_without_a_weight_is_an_error() -> None:
    with pytest.raises(ValueError, match="shorter"):
        preference(PAIR, ["sigmoid", "sft"], [1.0], BETA)


def test_the_image_term_wants_the_chosen_answer_to_need_the_image() -> None:
    assert image_term(column(0.2), column(-0.05)).item() == pytest.approx(loss_of(0.25), abs=1e-15)


def test_anchors_hold_a_reward_above_or_below_delta() -> None:
    assert anchor_term(column(0.2), 0.05).item() == pytest.approx(loss_of(0.15), abs=1e-15)
    assert lower_anchor_term(column(0.2), 0.05).item() == pytest.approx(loss_of(-0.15), abs=1e-15)


@given(rewards, st.floats(-1, 1))
def test_the_two_anchors_pull_opposite_ways(value: float, delta: float) -> None:
    held = column(value).requires_grad_()
    up, down = (torch.autograd.grad(term(held, delta), held)[0].item() for term in (anchor_term, lower_anchor_term))
    assert up <= 0 <= down
    assert down - up == pytest.approx(1, abs=1e-12)  # sigmoid(x) + sigmoid(-x)


def test_the_symmetric_term_compares_answers_once_per_image() -> None:
    assert symmetric_term(column(0.5), column(0.25)).item() == pytest.approx(loss_of(0.5) + loss_of(0.25), abs=1e-15)


@given(rewards, rewards)
def test_the_symmetric_term_treats_both_images_alike(margin: float, similar: float) -> None:
    there, back = symmetric_term(column(margin), column(similar)), symmetric_term(column(similar), column(margin))
    assert there.item() == pytest.approx(back.item(), abs=1e-12)


@given(rewards, st.floats(0.1, 10), st.floats(0.01, 2))
def test_the_margin_term_is_zero_exactly_where_the_margins_agree(margin: float, apart: float, beta: float) -> None:
    assert margin_term(column(margin), column(margin), beta).item() == 0
    assert margin_term(column(margin), column(margin + apart), beta).item() == pytest.approx((apart / beta) ** 2)


def test_the_margin_term_squares_log_ratios_so_beta_does_not_scale_it() -> None:
    # Log-ratios of 5 and 2, as rewards under two betas.
    for beta in (0.1, 0.5):
        assert margin_term(column(5 * beta), column(2 * beta), beta).item() == pytest.approx(9)
