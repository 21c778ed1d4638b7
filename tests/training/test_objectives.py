"""The objectives against the papers' formulas, written out by hand in float64."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from training.objectives import dpo, mdpo, reward

#: One pair: policy and reference log-probs of chosen, rejected, chosen next to the corrupted image.
POLICY = (-10.0, -14.0, -13.0)
REF = (-12.0, -11.0, -12.5)
BETA = 0.1


def loss_of(x: float) -> float:
    return -math.log(1 / (1 + math.exp(-x)))


def vectors(values: tuple[float, ...]) -> list[Tensor]:
    return [torch.tensor([value], dtype=torch.float64) for value in values]


def test_the_reward_is_beta_times_the_log_ratio() -> None:
    chosen, ref = vectors((-10.0, -12.0))
    assert reward(chosen, ref, BETA).item() == pytest.approx(0.2, abs=1e-15)


def test_dpo_is_minus_log_sigmoid_of_the_reward_margin() -> None:
    (chosen, rejected, _), (ref_chosen, ref_rejected, _) = vectors(POLICY), vectors(REF)
    # r(chosen) = 0.1 * 2 = 0.2, r(rejected) = 0.1 * -3 = -0.3
    assert dpo(chosen, rejected, ref_chosen, ref_rejected, BETA).item() == pytest.approx(loss_of(0.5), abs=1e-15)


def test_mdpo_has_a_response_an_image_and_an_anchor_term() -> None:
    terms = mdpo(*vectors(POLICY), *vectors(REF), beta=BETA, anchor_delta=0.05)
    # r(chosen | corrupted) = 0.1 * -0.5 = -0.05
    assert terms.response.item() == pytest.approx(loss_of(0.2 + 0.3), abs=1e-15)
    assert terms.image.item() == pytest.approx(loss_of(0.2 + 0.05), abs=1e-15)
    assert terms.anchor.item() == pytest.approx(loss_of(0.2 - 0.05), abs=1e-15)


def test_the_total_is_the_weighted_sum_and_the_paper_weighs_all_terms_one() -> None:
    terms = mdpo(*vectors(POLICY), *vectors(REF), beta=BETA)
    assert terms.total().item() == pytest.approx(loss_of(0.5) + loss_of(0.25) + loss_of(0.2), abs=1e-15)
    assert terms.total(2, 3, 0).item() == pytest.approx(2 * loss_of(0.5) + 3 * loss_of(0.25), abs=1e-15)


def test_without_image_and_anchor_mdpo_is_dpo() -> None:
    policy, ref = vectors(POLICY), vectors(REF)
    assert torch.equal(mdpo(*policy, *ref, beta=BETA).total(1, 0, 0), dpo(policy[0], policy[1], ref[0], ref[1], BETA))


def test_the_gradients_are_those_of_the_formulas() -> None:
    inputs = [torch.randn(4, dtype=torch.float64, requires_grad=True) for _ in range(6)]
    assert torch.autograd.gradcheck(lambda *x: dpo(*x, beta=0.3), inputs[:4])
    assert torch.autograd.gradcheck(lambda *x: mdpo(*x, beta=0.3, anchor_delta=0.1).total(1, 2, 3), inputs)


@given(st.lists(st.floats(-1e4, 1e4), min_size=6, max_size=6), st.floats(0.01, 10))
def test_losses_stay_finite_and_positive_however_far_apart_the_log_probs_are(values: list[float], beta: float) -> None:
    terms = mdpo(*vectors(tuple(values)), beta=beta)
    for term in terms:
        assert torch.isfinite(term).all()
        assert (term >= 0).all()


@given(st.lists(st.floats(-100, 0), min_size=3, max_size=3))
def test_equal_models_lose_log_2_per_term(values: list[float]) -> None:
    same = vectors(tuple(values))
    for term in mdpo(*same, *same, beta=BETA):
        assert term.item() == pytest.approx(math.log(2), abs=1e-12)
